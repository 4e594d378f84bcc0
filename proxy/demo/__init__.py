"""`counterfault demo`: a small shop, its users, and two experiments on them."""


def main(keep: bool) -> int:
    """Give the tour; with `keep`, leave everything running until ^C. Returns the exit code."""
    # The shop's processes import this package too, and need nothing of the tour.
    from counterfault.proxy.demo.tour import main as tour

    return tour(keep)
