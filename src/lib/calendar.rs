//! Days and moments in UTC, from seconds since 1970 to ISO 8601 and, for days, back.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of a day; leap seconds do not count in seconds since 1970.
const DAY: i64 = 86400;

/// Seconds since 1970 now, by this host's clock.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}

/// Seconds since 1970 in ISO 8601: `2026-01-31T12:00:00Z`.
#[must_use]
pub fn at(seconds: i64) -> String {
    format!("{}T{}Z", Day::of(seconds), time(seconds))
}

/// The time of day: `12:00:00`.
fn time(seconds: i64) -> String {
    let rest = seconds.rem_euclid(DAY);
    format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Seconds since 1970 as mail has them (RFC 5322, 3.3):
/// `Sat, 31 Jan 2026 12:00:00 +0000`.
#[must_use]
pub fn in_mail(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let day = Day::of(seconds);
    let (year, month, date) = day.civil();
    let named = |names: &'static [&str], number: i64| {
        let number = usize::try_from(number).ok();
        number.and_then(|number| names.get(number)).copied()
    };
    // 1970-01-01 was a Thursday.
    let weekday = named(&DAYS, day.0.rem_euclid(7)).unwrap_or_default();
    let month = named(&MONTHS, month - 1).unwrap_or_default();
    let time = time(seconds);
    format!("{weekday}, {date} {month} {year} {time} +0000")
}

/// A day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(i64);

impl Day {
    /// The day that a second since 1970 belongs to.
    #[must_use]
    pub fn of(seconds: i64) -> Day {
        Day(seconds.div_euclid(DAY))
    }

    /// So many days before this one.
    #[must_use]
    pub fn before(self, days: i64) -> Day {
        Day(self.0.saturating_sub(days))
    }

    /// Its first second since 1970.
    #[must_use]
    pub fn begin(self) -> i64 {
        self.0.saturating_mul(DAY)
    }

    /// Its last second since 1970.
    #[must_use]
    pub fn end(self) -> i64 {
        self.begin().saturating_add(DAY - 1)
    }

    /// A day as it is shown; `None` for whatever is not the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Day> {
        let mut parts = text.split('-').map(|part| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<i64>().ok().filter(|_| digits)
        });
        let (year, month, date) = (parts.next()??, parts.next()??, parts.next()??);
        let day = Day(days(year, month, date));
        // What is no date, or not written as one, comes out as another.
        (day.to_string() == text).then_some(day)
    }

    /// Year, month and date, in years that begin with March.
    fn civil(self) -> (i64, i64, i64) {
        // Days since 0000-03-01, and eras of 400 years.
        let days = self.0 + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let date = day - (153 * month + 2) / 5 + 1;
        let year = year + era * 400 + i64::from(month >= 10);
        (year, if month < 10 { month + 3 } else { month - 9 }, date)
    }
}

/// `2026-01-31`.
impl fmt::Display for Day {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, date) = self.civil();
        write!(out, "{year:04}-{month:02}-{date:02}")
    }
}

/// The days from 1970-01-01 to a date.
fn days(year: i64, month: i64, date: i64) -> i64 {
    let year = year.min(9999) - i64::from(month <= 2);
    let month = (month.min(99) + 9) % 12;
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day = (153 * month + 2) / 5 + date.min(99) - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_iso_8601_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(at(seconds), text);
            let day = Day::of(seconds);
            assert_eq!(Day::parse(&text[..10]), Some(day));
            assert!((day.begin()..=day.end()).contains(&seconds));
        }
    }

    #[test]
    fn mail_has_its_own_form_of_time() {
        for (seconds, text) in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_782_461, "Tue, 29 Feb 2000 00:01:01 +0000"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 +0000"),
        ] {
            assert_eq!(in_mail(seconds), text);
        }
    }

    #[test]
    fn every_day_is_read_as_it_is_written_and_nothing_else_is_a_day() {
        for number in -30_000..60_000 {
            let day = Day(number);
            assert_eq!(Day::parse(&day.to_string()), Some(day));
        }
        for text in [
            "",
            "2026-02-29",
            "2026-1-01",
            "2026-13-01",
            "2026-00-10",
            "2026-01-00",
            "2026-01-32",
            "26-01-01",
            "2026-01-01x",
            "2026-01-01-",
            "+2026-01-01",
            "2026_01_01",
            "-2026-01-01",
            "99999999999999999999-01-01",
            "9223372036854775807-01-01",
        ] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }
}
