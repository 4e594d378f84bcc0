"""counterfault: would our users notice if this dependency failed?"""

__version__ = "0.1.0"
