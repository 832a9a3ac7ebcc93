"""A clock that is set while programs run: a library before all others that moves what they are told.

Linux has no realtime clock of one process or namespace (time_namespaces(7) moves the others alone), and
setting the machine's would set everybody's. What asks the C library for the date (time(2), gettimeofday(2),
clock_gettime(2)), Python and OpenSSL among them, is told another by this; what measures spans is not.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Names the file that holds the seconds to add, as eight bytes in the machine's order.
VARIABLE = "BOT_BOTTLE_TEST_CLOCK"
DAY = 86_400

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long none = 0, *added = &none;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("BOT_BOTTLE_TEST_CLOCK");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof *added, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        added = page;
}

int clock_gettime(clockid_t clock, struct timespec *into)
{
    int result = syscall(SYS_clock_gettime, clock, into);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        into->tv_sec += *added;
    return result;
}

int gettimeofday(struct timeval *restrict into, void *restrict zone)
{
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    (void)zone;
    into->tv_sec = now.tv_sec;
    into->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *into)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into)
        *into = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """The clock of what was started with :attr:`env`; skips the test where it cannot be made."""

    def __init__(self, folder: Path) -> None:
        import pytest  # noqa: PLC0415 - every launch of a test's bottle loads this module for its names

        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler (cc) is here to make the library that moves a clock")
        self.library, self.file = folder / "clock.so", folder / "clock"
        made = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(self.library)],
            input=_SOURCE.encode(),
            capture_output=True,
            check=False,
        )
        if made.returncode != 0:
            pytest.skip(f"cc cannot make a library here: {made.stderr.decode(errors='replace')[-300:]}")
        self.file.write_bytes(bytes(8))
        for path in (self.library, self.file):
            path.chmod(0o755)

    @property
    def env(self) -> dict[str, str]:
        """The variables that put a program under this clock."""
        return {"LD_PRELOAD": str(self.library), VARIABLE: str(self.file)}

    def set(self, seconds: int) -> None:
        """Let the clock stand so many seconds from the true time, from now on."""
        with self.file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", seconds))
