"""What the clock on an airport's wall shows, and when it shows a given time; whole columns at once.

Times are minutes since 1970-01-01T00:00Z. Offsets come from the IANA time zone database, so the changes to and
from daylight saving time are those that happened.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

Minutes = npt.NDArray[np.int64]
MINUTES_A_DAY = 1440
HOUR = timedelta(hours=1)


class Clocks:
    """The clocks of several zones, from `start` to `end`; a zone is named by its index in `zones`."""

    def __init__(self, zones: Sequence[str], start: datetime, end: datetime) -> None:
        self._first_hour = int(start.timestamp()) // 3600
        hours = [start + number * HOUR for number in range((end - start) // HOUR + 1)]
        # Every change of these zones falls on a full hour UTC.
        offsets = [_offset(hour, ZoneInfo(zone)) for zone in zones for hour in hours]
        self._offsets = np.array(offsets, dtype=np.int64).reshape(len(zones), len(hours))

    def offset(self, zone: npt.NDArray[np.int64], at: Minutes) -> Minutes:
        """Local time minus UTC in each zone at each time, in minutes; IndexError outside the range."""
        offsets: Minutes = self._offsets[zone, at // 60 - self._first_hour]
        return offsets

    def minute_of_day(self, zone: npt.NDArray[np.int64], at: Minutes) -> Minutes:
        """What the clock shows, in minutes since local midnight."""
        return (at + self.offset(zone, at)) % MINUTES_A_DAY

    def first_showing(self, minute: Minutes, zone: npt.NDArray[np.int64], after: Minutes) -> Minutes:
        """The first time later than `after` at which the clock shows `minute` of the day, within about a day."""
        wait = (minute - self.minute_of_day(zone, after) - 1) % MINUTES_A_DAY + 1
        unchanged = after + wait
        return unchanged + self.offset(zone, after) - self.offset(zone, unchanged)


def minutes_since_midnight(hhmm: Minutes) -> Minutes:
    """HHMM as an integer (517 is 05:17, 2400 is midnight) -> minutes."""
    return (hhmm // 100 * 60 + hhmm % 100) % MINUTES_A_DAY


def _offset(moment: datetime, zone: ZoneInfo) -> int:
    offset = moment.astimezone(UTC).astimezone(zone).utcoffset() or timedelta()
    return offset // timedelta(minutes=1)
