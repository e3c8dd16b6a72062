/* SPDX-License-Identifier: Apache-2.0
 *
 * What the container's cgroup has used, and whether the kernel killed a process in it for lack of memory.
 */
#define _GNU_SOURCE
#include "monitor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REPORTS = 4, REPORT = 4096, NAME = 256 + 8 }; /* a name with its quotes */
enum { REMOVAL_TOLD = 100, IN_DOUBT = 1000 };        /* milliseconds */
_Static_assert(USAGE_SPACE >= REPORTS * (NAME + 2 * REPORT), "room for every report");

static int oom_file = -1;  /* v1: memory.oom_control, v2: memory.events */
static int oom_event = -1; /* v1: an eventfd; v2: the file itself wakes poll */
static uint64_t kills;     /* of processes in the cgroup for lack of memory */
static void (*tell_killed)(void);
static uint64_t shortages; /* v2: how often the cgroup ran out of memory */
static struct {
    int64_t until, next; /* milliseconds(); 0: none */
    int step;
} doubt; /* the cgroup has run out of memory, and the kernel may yet count a kill */
static uint64_t oom_wakes; /* of the eventfd: one when the cgroup is removed, the others for shortages */
static int events = -1;    /* cgroup.events: wakes poll when the cgroup becomes empty */

static struct report {
    const char *name;
    int fd;
    ssize_t length; /* -1: unknown */
} reports[REPORTS];
static int report_count;
static char texts[REPORTS][REPORT]; /* apart: their pages are not in memory before the end */

static void usage_doubt(void);

static uint64_t number_after(const char *text, const char *name)
{
    const char *line = strstr(text, name);
    return line ? strtoull(line + strlen(name), NULL, 10) : 0;
}

/* Both files carry a line "oom_kill N"; they are unreadable (0 is returned) once the cgroup is gone. */
static int check_oom(void)
{
    char text[512];
    ssize_t length = pread(oom_file, text, sizeof text - 1, 0);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    uint64_t killed = number_after(text, "oom_kill "), short_of = number_after(text, "\noom ");
    if (short_of > shortages)
        usage_doubt();
    shortages = short_of;
    if (killed > kills) {
        kills = killed;
        doubt.until = 0;
        tell_killed();
    }
    return 1;
}

static void usage_doubt(void)
{
    int64_t now = milliseconds();
    doubt.until = now + IN_DOUBT;
    doubt.step = 1;
    doubt.next = now + doubt.step;
}

/* The kernel reports a shortage before it kills, and on v1 it does not report the kill. */
int64_t usage_turn(void)
{
    int64_t now = milliseconds();
    if (!doubt.until || now < doubt.next)
        return doubt.until ? doubt.next : 0;
    doubt.next = now + (doubt.step *= 2);
    if (check_oom() && now >= doubt.until)
        doubt.until = 0; /* no process was killed */
    return doubt.until ? doubt.next : 0;
}

void usage_watch_oom(int file, int event, void (*killed)(void))
{
    tell_killed = killed;
    oom_file = file;
    oom_event = event;
}

/* Ask for short time slices on the CPU: since Linux 6.12 this process then preempts others when it wakes
 * (sched_setattr(2)). On a busy host it reads in time twice as often. */
static void hurry(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = sizeof attributes, .flags = 1 /* SCHED_FLAG_RESET_ON_FORK */, .runtime = 100000 /* ns */};
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

void usage_watch_events(int file)
{
    events = file;
    if (events >= 0)
        hurry();
}

void usage_add_report(const char *name, int file)
{
    if (report_count < REPORTS)
        reports[report_count++] = (struct report){.name = name, .fd = file, .length = -1};
}

/* systemd removes a cgroup as soon as it is empty, and its files, open or not, can then no longer be read. The
 * kernel wakes poll on cgroup.events before it notifies inotify, which systemd waits for. */
void usage_read(void)
{
    for (int i = 0; i < report_count; i++) {
        ssize_t length = pread(reports[i].fd, texts[i], REPORT, 0);
        if (length >= 0)
            reports[i].length = length < REPORT ? length : -1;
    }
    check_oom();
}

static void count_wakes(void)
{
    uint64_t count;
    if (read(oom_event, &count, sizeof count) == sizeof count)
        oom_wakes += count;
}

void usage_poll(struct pollfd fds[USAGE_FDS])
{
    int v2 = oom_event < 0 && oom_file >= 0;
    fds[0] = (struct pollfd){.fd = events, .events = POLLPRI};
    fds[1] = (struct pollfd){.fd = v2 ? oom_file : oom_event, .events = v2 ? POLLPRI : POLLIN};
}

void usage_ready(const struct pollfd fds[USAGE_FDS])
{
    if (fds[0].revents) { /* first: soon there is nothing left to read */
        char text[64];
        ssize_t length = pread(events, text, sizeof text - 1, 0);
        text[length > 0 ? length : 0] = '\0';
        if (length < 0)
            events = -1; /* removed: it would wake poll again and again */
        else if (strstr(text, "populated 0"))
            usage_read();
    }
    if (fds[1].revents) {
        int v2 = oom_event < 0;
        /* v1 wakes poll before the kill, and once more when the cgroup is removed; v2 at each change,
         * and again and again once it is removed */
        if (!v2)
            count_wakes();
        uint64_t before = kills;
        int there = check_oom();
        if (there && !v2 && kills == before)
            usage_doubt();
        if (!there && v2)
            oom_file = -1;
    }
}

int usage_oom(void)
{
    int there = check_oom();
    if (kills || there)
        return kills > 0;
    if (doubt.until)
        return 1; /* a shortage, and the counter is gone: taken for a kill */
    if (oom_event < 0)
        return 0;
    /* the cgroup is gone, and its counters with it. The eventfd reports the removal a moment later; a shortage it has
     * reported before */
    int64_t until = milliseconds() + REMOVAL_TOLD;
    for (count_wakes(); oom_wakes == 1 && milliseconds() < until; count_wakes())
        poll(&(struct pollfd){.fd = oom_event, .events = POLLIN}, 1, REMOVAL_TOLD / 4);
    return oom_wakes > 1;
}

static char *put_report(char *end, const struct report *report, const char *text)
{
    *end++ = '"';
    end = put_text(put_text(end, report->name), "\":\"");
    for (const char *stop = text + report->length; text < stop; text++)
        if (*text == '\n')
            end = put_text(end, "\\n");
        else if (*text >= ' ' && *text != '"' && *text != '\\')
            *end++ = *text;
    *end++ = '"';
    return end;
}

char *usage_put(char *end)
{
    const char *comma = "";
    for (int i = 0; i < report_count; i++)
        if (reports[i].length >= 0) {
            end = put_report(put_text(end, comma), &reports[i], texts[i]);
            comma = ",";
        }
    return end;
}
