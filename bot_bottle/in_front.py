"""Become a program in front of the terminal that is this process's standard input (tty_ioctl(4)).

Run as a file with ``-I -S`` in a session of its own: nothing of this program is imported.
"""

import fcntl
import os
import sys
import termios

if __name__ == "__main__":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    try:
        os.execvpe(sys.argv[1], sys.argv[1:], os.environ)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error.strerror}")
