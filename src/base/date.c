#include "base/date.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define SECOND_US 1000000LL
#define DAY_US    (86400 * SECOND_US)

/* Exactly n digits; *at moves behind them. -1: they are not there. */
static int digits(const char **at, int n) {
    int value = 0;
    for (int i = 0; i < n; i++, (*at)++) {
        if (**at < '0' || **at > '9') {
            return -1;
        }
        value = value * 10 + (**at - '0');
    }
    return value;
}

static bool mark(const char **at, const char *any_of) {
    if (!**at || !strchr(any_of, **at)) {
        return false;
    }
    (*at)++;
    return true;
}

static int days_of(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool             leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

static bool read_day(const char **at, struct tm *t) {
    int year = digits(at, 4);
    int month = year >= 1970 && mark(at, "-") ? digits(at, 2) : -1;
    int day = month >= 1 && month <= 12 && mark(at, "-") ? digits(at, 2) : -1;
    *t = (struct tm){.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day};
    return day >= 1 && day <= days_of(year, month);
}

/* "18:00:00", maybe with a fraction, which counts to the microsecond. */
static bool read_time(const char **at, struct tm *t, int64_t *fraction_us) {
    t->tm_hour = digits(at, 2);
    t->tm_min = t->tm_hour >= 0 && mark(at, ":") ? digits(at, 2) : -1;
    t->tm_sec = t->tm_min >= 0 && mark(at, ":") ? digits(at, 2) : -1;
    if (t->tm_sec < 0 || t->tm_hour > 23 || t->tm_min > 59 || t->tm_sec > 60) {
        return false;
    }
    if (mark(at, ".")) {
        int64_t unit = SECOND_US / 10;
        if (**at < '0' || **at > '9') {
            return false;
        }
        for (; **at >= '0' && **at <= '9'; (*at)++, unit /= 10) {
            *fraction_us += (**at - '0') * unit;
        }
    }
    return true;
}

/* "Z" or "+02:00": what is to be taken off, in seconds. */
static bool read_zone(const char **at, int64_t *seconds) {
    if (mark(at, "Zz")) {
        return true;
    }
    int sign = **at == '-' ? -1 : 1;
    int hours = mark(at, "+-") ? digits(at, 2) : -1;
    int minutes = hours >= 0 && mark(at, ":") ? digits(at, 2) : -1;
    *seconds = sign * (hours * 3600LL + minutes * 60LL);
    return minutes >= 0 && hours <= 23 && minutes <= 59;
}

bool parse_date(const char *text, int64_t *us) {
    struct tm t;
    int64_t   zone = 0, fraction = 0;
    if (!read_day(&text, &t) ||
        (*text && (!mark(&text, "Tt ") || !read_time(&text, &t, &fraction) || !read_zone(&text, &zone) || *text))) {
        return false;
    }
    *us = ((int64_t)timegm(&t) - zone) * SECOND_US + fraction;
    return true;
}

static struct tm parts_of(int64_t us) {
    time_t    seconds = (time_t)(us / SECOND_US);
    struct tm t = {0};
    gmtime_r(&seconds, &t);
    return t;
}

void date_text(int64_t us, char out[DATE_TEXT]) {
    struct tm t = parts_of(us);
    strftime(out, DATE_TEXT, "%Y-%m-%dT%H:%M:%SZ", &t);
}

int64_t day_begin(int64_t us) {
    return us - us % DAY_US;
}

int64_t month_begin(int64_t us) {
    struct tm t = parts_of(us);
    struct tm first = {.tm_year = t.tm_year, .tm_mon = t.tm_mon, .tm_mday = 1};
    return (int64_t)timegm(&first) * SECOND_US;
}
