/* SPDX-License-Identifier: Apache-2.0
 *
 * sysbox-monitor: what a detached container costs while it runs.
 *
 *     sysbox-monitor --pid PID --dir DIRECTORY --stop-signal N --stop-timeout SECONDS
 *                    [--oom MEMORY_CGROUP v1|v2] [--events FILE] [--report FILE]... [--thaw FILE TEXT]
 *                    [--pump IN OUT]... [--terminal FD] [--hold FD]
 *
 * The process that forked the container executes this program, so PID is its child: nobody else can reap
 * it, and a signal sent to it cannot hit a recycled number. It copies what the container writes to the
 * journal (--pump: from a pipe or a terminal's master to a stream of the journal's), notes an out-of-memory
 * kill, passes SIGTERM on as the container's stop signal (SIGKILL after the timeout; a negative one waits
 * for ever), and when PID ends writes DIRECTORY/exit, one line of JSON:
 *
 *     {"code":N,"signal":N,"oom":BOOL,"finished":NANOSECONDS,"usage":{"NAME":"TEXT",...}}
 *
 * code is the exit status of a shell (128 plus the signal), finished is since the epoch, usage has what each
 * --report, a file of its cgroup, said last. It then exits with that code (with 0 where it was asked to stop). --hold names a descriptor that
 * must stay open, that is all. No heap, no buffered I/O.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h> /* renameat */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

enum { FAILED = 125, SIGNALLED = 128, BUFFER = 4096, PUMPS = 2, SECOND = 1000 };
enum { REPORTS = 4, REPORT = 4096, NAME = 256 + 8 }; /* a name with its quotes */

static struct {
    pid_t pid;
    int dir;
    int stop_signal, stop_timeout;
    int terminal;
    int oom_file;      /* v1: memory.oom_control, v2: memory.events */
    int oom_event;     /* v1: an eventfd; v2: the file itself wakes poll */
    int oom_seen, oom; /* the cgroup ran out of memory; somebody was killed for it */
    int events;        /* cgroup.events: wakes poll when the cgroup becomes empty */
    int freezer;       /* freezer.state or cgroup.freeze */
    const char *thaw;  /* what is written there */
    int asked;         /* to stop: the service that does so has succeeded, whatever the payload's status */
    int64_t deadline; /* CLOCK_MONOTONIC, ms; 0 while nobody asked to stop */
} monitor = {.dir = -1, .stop_timeout = 10, .stop_signal = SIGTERM,
             .terminal = -1, .oom_file = -1, .oom_event = -1, .events = -1, .freezer = -1};

static struct pump {
    int in, out;
    size_t buffered, written;
    char buffer[BUFFER];
} pumps[PUMPS];
static int pump_count;

static struct report {
    const char *name;
    int fd;
    ssize_t length; /* -1: not known */
} reports[REPORTS];
static int report_count;
static char texts[REPORTS][REPORT]; /* apart, and so not in memory before the end */

static _Noreturn void fail(const char *what)
{
    const char *parts[] = {"sysbox-monitor: ", what, ": ", strerror(errno), "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (write(STDERR_FILENO, parts[i], strlen(parts[i])) < 0)
            break;
    _exit(FAILED);
}

static int64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec / 1000000;
}

static char *put_text(char *end, const char *text)
{
    size_t length = strlen(text);
    memcpy(end, text, length);
    return end + length;
}

static char *put_number(char *end, uint64_t number)
{
    char digits[20];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count)
        *end++ = digits[--count];
    return end;
}

/* Out of memory */

/* Both files carry a line "oom_kill N"; they are unreadable (0 is returned) once the cgroup is gone. */
static int check_oom(void)
{
    char text[512];
    ssize_t length = pread(monitor.oom_file, text, sizeof text - 1, 0);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    const char *line = strstr(text, "oom_kill ");
    if (line && line[strlen("oom_kill ")] != '0')
        monitor.oom = 1;
    return 1;
}

static void watch_oom(const char *cgroup, int v1)
{
    int dir = open(cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return; /* the controller is not there: no limit, so no kill to notice */
    monitor.oom_file = openat(dir, v1 ? "memory.oom_control" : "memory.events", O_RDONLY | O_CLOEXEC);
    int control = v1 ? openat(dir, "cgroup.event_control", O_WRONLY | O_CLOEXEC) : -1;
    if (monitor.oom_file >= 0 && control >= 0) {
        char line[64], *end = line;
        int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        end = put_number(end, (uint64_t)event);
        *end++ = ' ';
        end = put_number(end, (uint64_t)monitor.oom_file);
        if (event >= 0 && write(control, line, (size_t)(end - line)) > 0)
            monitor.oom_event = event;
    }
    if (control >= 0)
        close(control);
    close(dir);
}

/* What the cgroup has used */

/* The service manager removes a cgroup as soon as it is empty, and its files, open or not, cannot be read
 * any more. The kernel wakes poll on cgroup.events before it tells inotify, which the manager waits for. */
static void read_reports(void)
{
    for (int i = 0; i < report_count; i++) {
        ssize_t length = pread(reports[i].fd, texts[i], REPORT, 0);
        if (length >= 0)
            reports[i].length = length < REPORT ? length : -1;
    }
}

static void add_report(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || report_count == REPORTS)
        return; /* not with this kernel, or gone already: it stays unknown */
    const char *slash = strrchr(path, '/');
    reports[report_count++] = (struct report){.name = slash ? slash + 1 : path, .fd = fd, .length = -1};
}

static void take_events(void)
{
    char text[64];
    read_reports();
    check_oom();
    if (pread(monitor.events, text, sizeof text, 0) < 0)
        monitor.events = -1; /* removed: from now on it would wake us without end */
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

/* From the container to the journal */

/* As the container: journald files a line under the unit of the process that the message names, which root
 * may choose (unix(7), SCM_CREDENTIALS). It is our child and not reaped yet, so the number is its own. */
static ssize_t send_as(pid_t pid, int fd, char *data, size_t length)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(struct ucred))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(struct ucred)), .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_CREDENTIALS}};
    struct ucred who = {.pid = pid, .uid = getuid(), .gid = getgid()};
    memcpy(CMSG_DATA(&control.header), &who, sizeof who);
    struct iovec part = {.iov_base = data, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space,
                             .msg_controllen = sizeof control.space};
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void flush(struct pump *pump)
{
    while (pump->written < pump->buffered) {
        ssize_t count = send_as(monitor.pid, pump->out, pump->buffer + pump->written,
                                pump->buffered - pump->written);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count < 0) { /* the journal is gone: keep draining, or the container would block */
            pump->out = -1;
            break;
        }
        pump->written += (size_t)count;
    }
    pump->buffered = pump->written = 0;
}

static void fill(struct pump *pump)
{
    ssize_t count = read(pump->in, pump->buffer, sizeof pump->buffer);
    if (count > 0 && pump->out >= 0) {
        pump->buffered = (size_t)count;
        flush(pump);
    } else if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
        pump->in = -1;
    }
}

/* What the container wrote last is still in the pipe; give the journal a second to take it. */
static void drain(struct pump *pump)
{
    int64_t deadline = milliseconds() + SECOND;
    while (pump->in >= 0 && milliseconds() < deadline) {
        struct pollfd wait = {.fd = pump->in, .events = POLLIN};
        if (pump->buffered)
            wait = (struct pollfd){.fd = pump->out, .events = POLLOUT};
        int ready = poll(&wait, 1, pump->buffered ? SECOND / 10 : 0);
        if (pump->buffered)
            flush(pump);
        else if (ready > 0)
            fill(pump);
        else
            return;
    }
}

/* The end */

static _Noreturn void finish(const siginfo_t *how)
{
    read_reports();
    int number = how->si_code == CLD_EXITED ? 0 : how->si_status;
    int code = number ? SIGNALLED + number : how->si_status;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    check_oom();
    if (monitor.oom_seen && number == SIGKILL)
        monitor.oom = 1; /* the cgroup may be gone, and its counters with it */
    for (int i = 0; i < pump_count; i++)
        drain(&pumps[i]);

    static char line[160 + REPORTS * (NAME + 2 * REPORT)];
    char *end = put_text(line, "{\"code\":");
    end = put_number(end, (uint64_t)code);
    end = put_number(put_text(end, ",\"signal\":"), (uint64_t)number);
    end = put_text(put_text(end, ",\"oom\":"), monitor.oom ? "true" : "false");
    end = put_text(end, ",\"finished\":");
    end = put_number(end, (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec);
    end = put_text(end, ",\"usage\":{");
    const char *comma = "";
    for (int i = 0; i < report_count; i++)
        if (reports[i].length >= 0) {
            end = put_report(put_text(end, comma), &reports[i], texts[i]);
            comma = ",";
        }
    end = put_text(end, "}}\n");

    int fd = openat(monitor.dir, "exit.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write(fd, line, (size_t)(end - line)) < 0 ||
        renameat(monitor.dir, "exit.tmp", monitor.dir, "exit") < 0)
        fail("recording the exit status");
    _exit(monitor.asked ? 0 : code);
}

/* It stays a zombie until we end: its number must not become another's while its last lines are sent. */
static void look(void)
{
    siginfo_t how = {0};
    if (waitid(P_PID, (id_t)monitor.pid, &how, WEXITED | WNOHANG | WNOWAIT) < 0)
        fail("the container is not a child of this process");
    if (how.si_pid == monitor.pid)
        finish(&how);
}

/* A container that is paused would not act on a signal, on cgroup v1 not even on SIGKILL. It has it before it
 * goes on. */
static void send_signal(int number)
{
    kill(monitor.pid, number);
    if (monitor.freezer >= 0 && write(monitor.freezer, monitor.thaw, strlen(monitor.thaw)) < 0)
        monitor.freezer = -1; /* removed */
}

static void take_signals(int fd)
{
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo != SIGTERM)
            continue;
        monitor.asked = 1;
        send_signal(monitor.stop_signal);
        if (!monitor.deadline && monitor.stop_timeout >= 0)
            monitor.deadline = milliseconds() + (int64_t)monitor.stop_timeout * SECOND;
    }
    look();
}

/* Milliseconds until the stop timeout, for poll; kills the container when it has passed. */
static int patience(void)
{
    if (!monitor.deadline)
        return -1;
    int64_t left = monitor.deadline - milliseconds();
    if (left > 0)
        return left > INT32_MAX ? INT32_MAX : (int)left;
    send_signal(SIGKILL);
    monitor.deadline = 0;
    return -1;
}

static _Noreturn void watch(int signals)
{
    for (;;) {
        int v2 = monitor.oom_event < 0 && monitor.oom_file >= 0;
        struct pollfd fds[3 + PUMPS] = {
            {.fd = signals, .events = POLLIN},
            {.fd = v2 ? monitor.oom_file : monitor.oom_event, .events = v2 ? POLLPRI : POLLIN},
        };
        fds[2] = (struct pollfd){.fd = monitor.events, .events = POLLPRI};
        for (int i = 0; i < pump_count; i++) {
            struct pump *pump = &pumps[i];
            fds[3 + i] = pump->buffered ? (struct pollfd){.fd = pump->out, .events = POLLOUT}
                                        : (struct pollfd){.fd = pump->in, .events = POLLIN};
        }
        if (poll(fds, 3 + (nfds_t)pump_count, patience()) < 0)
            continue;
        if (fds[2].revents)
            take_events(); /* first: soon there is nothing left to read */
        if (fds[1].revents) {
            uint64_t count;
            /* v1 wakes us before the kill, and once more when the cgroup is removed; v2 for each change,
             * and without end once it is removed */
            int there = check_oom();
            if (there && !v2)
                monitor.oom_seen = 1;
            if (!there && v2)
                monitor.oom_file = -1;
            if (!v2 && read(monitor.oom_event, &count, sizeof count) < 0)
                monitor.oom_event = monitor.oom_file = -1;
        }
        for (int i = 0; i < pump_count; i++)
            if (fds[3 + i].revents) {
                if (pumps[i].buffered)
                    flush(&pumps[i]);
                else
                    fill(&pumps[i]);
            }
        if (fds[0].revents)
            take_signals(signals);
    }
}

static void parse(char **argument)
{
    const char *oom = NULL;
    int v1 = 0;
    while (argument[0] && argument[1]) {
        const char *option = argument[0], *value = argument[1];
        argument += 2;
        if (!strcmp(option, "--pid"))
            monitor.pid = atoi(value);
        else if (!strcmp(option, "--dir"))
            monitor.dir = open(value, O_PATH | O_DIRECTORY | O_CLOEXEC);
        else if (!strcmp(option, "--stop-signal"))
            monitor.stop_signal = atoi(value);
        else if (!strcmp(option, "--stop-timeout"))
            monitor.stop_timeout = atoi(value);
        else if (!strcmp(option, "--terminal"))
            monitor.terminal = atoi(value);
        else if (!strcmp(option, "--pump") && argument[0] && pump_count < PUMPS)
            pumps[pump_count++] = (struct pump){.in = atoi(value), .out = atoi(*argument++)};
        else if (!strcmp(option, "--events"))
            monitor.events = open(value, O_RDONLY | O_CLOEXEC);
        else if (!strcmp(option, "--report"))
            add_report(value);
        else if (!strcmp(option, "--thaw") && argument[0]) {
            monitor.freezer = open(value, O_WRONLY | O_CLOEXEC);
            monitor.thaw = *argument++;
        } else if (!strcmp(option, "--oom") && argument[0]) {
            oom = value;
            v1 = !strcmp(*argument++, "v1");
        } else if (strcmp(option, "--hold")) {
            errno = EINVAL;
            fail(option);
        }
    }
    if (*argument || monitor.pid <= 0 || monitor.dir < 0) {
        if (!errno)
            errno = EINVAL;
        fail("--pid and --dir, each option with its value");
    }
    if (oom)
        watch_oom(oom, v1);
}

int main(int argc, char **argv)
{
    (void)argc;
    prctl(PR_SET_NAME, "sysbox-monitor");
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGTERM);
    sigprocmask(SIG_SETMASK, &awaited, NULL);
    errno = 0;
    parse(argv + 1);
    int signals = signalfd(-1, &awaited, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        fail("signalfd");
    /* Our own end of the terminal: it never hangs up while the container has it closed. */
    if (monitor.terminal >= 0)
        ioctl(monitor.terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    look(); /* it may have ended before SIGCHLD was blocked */
    watch(signals);
}
