"""What the Python clients share: where Attaché is, who the end users are, and each of them at once."""

import os
from concurrent.futures import ThreadPoolExecutor

ATTACHE = os.environ["ATTACHE"]
# Whom the emulator refuses, and where it is: only to see that its own links are not called.
GONE = os.environ["GONE"]
UPSTREAM = os.environ["UPSTREAM"]


def for_each_user(test):
    users = os.environ["END_USERS"].split()
    with ThreadPoolExecutor(len(users)) as pool:
        list(pool.map(lambda user: test(user, user.split("@")[0]), users))
    print("ok")


def raises(kind, act):
    """The error of that type which `act` ends in."""
    try:
        act()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")
