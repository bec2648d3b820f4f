"""When jobs run in the nights in which clocks are changed: a second opinion, from Python's own time zones.

It plays the part of Vixie's daemon minute by minute: a virtual clock follows the wall clock, and a jump of the latter is
classified and dealt with as cron(8) says. It prints one JSON line per zone, seam and expression. It knows nothing of the
program under test.
"""

import json
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

UTC = timezone.utc
BEFORE, AFTER = 5 * 60, 10 * 60
SHIFT_MAX = 3 * 60
EPOCH = datetime(1970, 1, 1)


def field(text, low, high):
    values = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = map(int, span.split("-"))
        else:
            first = last = int(span)
        values.update(range(first, last + 1, int(step or 1)))
    return values


class Job:
    def __init__(self, text):
        minute, hour, day, month, weekday = text.split()
        self.text = text
        self.wild = minute.startswith("*") or hour.startswith("*")
        self.minutes, self.hours = field(minute, 0, 59), field(hour, 0, 23)
        self.days, self.months = field(day, 1, 31), field(month, 1, 12)
        self.weekdays = {value % 7 for value in field(weekday, 0, 7)}
        self.any_day, self.any_weekday = day.startswith("*"), weekday.startswith("*")

    def matches(self, wall_minute):
        wall = EPOCH + timedelta(minutes=wall_minute)
        day, weekday = wall.day in self.days, wall.isoweekday() % 7 in self.weekdays
        either = day and weekday if self.any_day or self.any_weekday else day or weekday
        return wall.minute in self.minutes and wall.hour in self.hours and wall.month in self.months and either


def wall_minute(zone, minute):
    """What the wall clock shows at a minute of UTC, in minutes."""
    shown = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)).astimezone(zone).replace(tzinfo=None)
    return (shown - EPOCH) // timedelta(minutes=1)


def runs(job, first, walls):
    """The minutes of UTC in which the job runs, from `first` on; `walls` begins with the minute before."""
    found = []
    virtual = walls[0]
    for minute, shown in enumerate(walls[1:], first):
        ahead = shown - virtual
        if ahead == 1 or abs(ahead) > SHIFT_MAX + 1:
            ran = job.matches(shown)
            virtual = shown
        elif ahead > 1:
            # Put forward: the minute that it is for wildcard jobs, each that was missed for the others.
            if job.wild:
                ran = job.matches(shown)
            else:
                ran = any(job.matches(missed) for missed in range(virtual + 1, shown + 1))
            virtual = shown
        else:
            # Put back: only wildcard jobs, until the wall clock has caught up.
            ran = job.wild and job.matches(shown)
        if ran:
            found.append(minute)
    return found


def seams(zone, year, years):
    at = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) // 60
    end = int(datetime(year + years, 1, 1, tzinfo=UTC).timestamp()) // 60
    offset = lambda minute: wall_minute(zone, minute) - minute
    while at < end:
        if offset(at) != offset(at + 360):
            low, high = at, at + 360
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
            yield high
        at += 360


def main():
    request = json.load(sys.stdin)
    jobs = [Job(text) for text in request["expressions"]]
    for name in request["zones"]:
        zone = ZoneInfo(name)
        for seam in seams(zone, request["year"], request["years"]):
            first, last = seam - BEFORE, seam + AFTER
            walls = [wall_minute(zone, minute) for minute in range(first - 1, last)]
            for job in jobs:
                minutes = runs(job, first, walls)
                answer = {"zone": name, "expression": job.text, "first": first, "last": last, "minutes": minutes}
                print(json.dumps(answer))


main()
