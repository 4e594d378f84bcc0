"""Would your users notice if this dependency failed?

The distribution's one top-level package. In the repository its two halves are the top-level
folders `proxy/` and `addons/`, to which this folder has links; a wheel holds the files themselves.
"""

__version__ = "0.1.0"
