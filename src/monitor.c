/* SPDX-License-Identifier: Apache-2.0
 *
 * sysbox-monitor: supervises a detached container; the only process of sysbox while that runs.
 *
 *     sysbox-monitor NAME --pid PID --dir DIRECTORY --stop-signal N --stop-timeout SECONDS
 *                    [--oom FILE EVENT] [--oom-policy NAME] [--events FD] [--report NAME FD]...
 *                    [--thaw FILE TEXT] [--pump FD]... [--journal FD IDENTIFIER RATE BURST] [--syslog FD]
 *                    [--json FILE MAX_SIZE MAX_FILES BESIDE]
 *                    [--terminal FD] [--input FD] [--attach FD 0|1]
 *                    [--health INTERVAL START_INTERVAL LAUNCHER ID] [--hold FD MILLISECONDS]
 *                    [--helper LAUNCHER ID] [--drop-ins DIRECTORY] [--notify FD CGROUP ADDRESS] [--listening FD...]
 *
 * NAME is the container's, for those who see the command in `systemctl status` or ps.
 *
 * The process that forked the container executes this program, so PID is its child: no other process can reap it,
 * and a signal sent to it cannot hit a reused pid. The monitor copies the container's output (--pump: a pipe or a
 * terminal's master; --journal: to the journal; --json: to a file), what comes to its /dev/log (--syslog), and serves clients that attach
 * (--attach: a listening socket, and whether to wait for the first), notes an out-of-memory kill (--oom: on v1
 * memory.oom_control and an eventfd, on v2 memory.events and -1; --events: cgroup.events), runs health checks
 * (intervals in milliseconds), runs sysbox when others change its limits (helper.c), keeps a connection
 * open for a while (--hold), passes on what it tells systemd (--notify, see notify.h), passes SIGTERM on as the container's stop signal (SIGKILL after the timeout; a
 * negative one waits for ever), and when PID ends writes DIRECTORY/exit, one line of JSON:
 *
 *     {"code":N,"signal":N,"oom":BOOL,"oom_told":BOOL,"timeout":BOOL,"stopped":BOOL,"unrecorded":BOOL,"finished":NANOSECONDS,
 *      "usage":{"FILE":"text",...}}
 *
 * code is the exit status of a shell (128 plus the signal), unrecorded says that there was a recorder of its system
 * calls (recorder.c), which is gone, finished is since the epoch, usage has what each --report, a file of its cgroup,
 * said last. It then exits with that code, or with 0 if it was asked to stop.
 */
#define _GNU_SOURCE
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h> /* renameat */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

enum { SIGNALLED = 128, RELIEF = 100 /* milliseconds */ };

static struct {
    pid_t pid;
    int dir;
    int stop_signal, stop_timeout;
    int terminal;
    int freezer;      /* freezer.state or cgroup.freeze */
    const char *thaw; /* what is written there */
    int asked;        /* to stop: the service has then succeeded, whatever the container's status */
    int stopped;      /* asked before the container had ended: machined stops the scope of one that has */
    int oom_policy;   /* the first letter of continue, stop, kill */
    int timeout;      /* the container was killed, since it did not stop in time */
    int64_t deadline; /* milliseconds(); 0 until a stop is requested */
    char **listening; /* the descriptors of sockets that listened when the container got them */
    int listeners;    /* how many */
    int64_t relieved; /* milliseconds(): when it is stopped since it has run out of memory; 0: it is not */
} monitor = {.dir = -1, .stop_timeout = 10, .stop_signal = SIGTERM, .terminal = -1, .freezer = -1};

static struct {
    char *launcher, *id;
    int interval, start_interval;
    pid_t pid;   /* of the running check */
    int64_t due; /* 0: no check is due */
} health;

static struct {
    int fd;
    int64_t due; /* 0: it is closed */
} held;

/* The end */

/* The container still has its filter: the recorder lives, or has just ended because nobody has one, or was killed.
 * After us nobody can tell, since systemd kills it with the service. */
static int unrecorded(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *end = put_number(put_text(address.sun_path, "/proc/self/fd/"), (uint64_t)monitor.dir);
    put_text(end, "/recorder");
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int refused = connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

/* systemd waits for connections again after us. A socket that the container has connected elsewhere, and whose
 * other end has closed, is ready for ever: while its unit is to be stopped, systemd before 255 does nothing but
 * look at it again (socket_enter_running of its source). One that is shut down has failed, and is closed. */
static void shut_down_lost_sockets(void)
{
    for (int at = 0; at < monitor.listeners; at++) {
        int fd = atoi(monitor.listening[at]), listens = 1;
        socklen_t size = sizeof listens;
        if (!getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) && !listens)
            shutdown(fd, SHUT_RDWR);
    }
}

static _Noreturn void finish(const siginfo_t *how)
{
    shut_down_lost_sockets();
    usage_read();
    int lacking = unrecorded();
    int number = how->si_code == CLD_EXITED ? 0 : how->si_status;
    int code = number ? SIGNALLED + number : how->si_status;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    notify_close();
    output_end(code);
    int oom = usage_oom();
    int told = oom && helper_told_oom();

    static char line[192 + USAGE_SPACE];
    char *end = put_text(line, "{\"code\":");
    end = put_number(end, (uint64_t)code);
    end = put_number(put_text(end, ",\"signal\":"), (uint64_t)number);
    end = put_text(put_text(end, ",\"oom\":"), oom ? "true" : "false");
    end = put_text(put_text(end, ",\"oom_told\":"), told ? "true" : "false");
    end = put_text(put_text(end, ",\"timeout\":"), monitor.timeout ? "true" : "false");
    end = put_text(put_text(end, ",\"stopped\":"), monitor.stopped ? "true" : "false");
    end = put_text(put_text(end, ",\"unrecorded\":"), lacking ? "true" : "false");
    end = put_text(end, ",\"finished\":");
    end = put_number(end, (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec);
    end = usage_put(put_text(end, ",\"usage\":{"));
    end = put_text(end, "}}\n");

    int fd = openat(monitor.dir, "exit.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write(fd, line, (size_t)(end - line)) < 0 ||
        renameat(monitor.dir, "exit.tmp", monitor.dir, "exit") < 0)
        fail("recording the exit status");
    _exit(monitor.asked ? 0 : code);
}

/* The container stays a zombie until we exit: its pid must not be reused while its last lines are sent. */
static int has_ended(siginfo_t *how)
{
    how->si_pid = 0;
    if (waitid(P_PID, (id_t)monitor.pid, how, WEXITED | WNOHANG | WNOWAIT) < 0)
        fail("the container is not a child of this process");
    return how->si_pid == monitor.pid;
}

static void look(void)
{
    siginfo_t how;
    if (has_ended(&how))
        finish(&how);
}

/* Health. The next check becomes due after the last one has ended: checks never pile up. */

static void check_health(void)
{
    sigset_t none;
    sigemptyset(&none);
    health.due = 0;
    health.pid = fork();
    if (health.pid)
        return; /* if fork failed, the next SIGCHLD tries again */
    sigprocmask(SIG_SETMASK, &none, NULL);
    char *arguments[] = {health.launcher, "_health", health.id, NULL}, *environment[] = {NULL};
    execve(health.launcher, arguments, environment);
    _exit(FAILED);
}

/* A check exits with 1 while the container is starting: the start interval applies then. */
static void reap_health(void)
{
    int status;
    if (!health.id || (health.pid > 0 && waitpid(health.pid, &status, WNOHANG) != health.pid))
        return;
    int starting = health.pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 1;
    if (health.pid || !health.due)
        health.due = milliseconds() + (starting ? health.start_interval : health.interval);
    health.pid = 0;
}

/* Being asked to stop */

/* A paused container acts on no signal, on cgroup v1 not even on SIGKILL: thaw it once the signal is pending. */
static void send_signal(int number)
{
    kill(monitor.pid, number);
    if (monitor.freezer >= 0 && write(monitor.freezer, monitor.thaw, strlen(monitor.thaw)) < 0)
        monitor.freezer = -1; /* removed */
}

static void stop(void)
{
    monitor.relieved = 0;
    send_signal(monitor.stop_signal);
    if (!monitor.deadline && monitor.stop_timeout >= 0)
        monitor.deadline = milliseconds() + (int64_t)monitor.stop_timeout * SECOND;
}

/* Apply OOMPolicy= to the rest: on cgroup v2 systemd and the kernel do that too, on v1 only the monitor does.
 * A stop is put off for a moment: the kernel counts a kill before the memory is free again, and would kill what
 * needs a page to act on the signal. */
static void out_of_memory(void)
{
    helper_tell_oom();
    if (monitor.oom_policy == 'k')
        send_signal(SIGKILL);
    else if (monitor.oom_policy == 's' && !monitor.relieved)
        monitor.relieved = milliseconds() + RELIEF;
}

static void take_signals(int fd)
{
    struct signalfd_siginfo info;
    siginfo_t how;
    while (read(fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGIO)
            helper_changed();
        if (info.ssi_signo != SIGTERM)
            continue;
        monitor.stopped |= !has_ended(&how);
        monitor.asked = 1;
        health.due = 0;
        health.id = NULL;
        stop();
    }
    look();
    reap_health();
    helper_reap();
}

/* Do what is due; return for how long poll may sleep, in milliseconds. */
static int patience(void)
{
    int64_t now = milliseconds(), next = output_deadline();
    if (monitor.deadline && now >= monitor.deadline) {
        send_signal(SIGKILL);
        monitor.deadline = 0;
        monitor.timeout = 1;
    }
    if (monitor.relieved && now >= monitor.relieved)
        stop();
    if (health.due && now >= health.due)
        check_health();
    if (held.due && now >= held.due) {
        close(held.fd);
        held.due = 0;
    }
    const int64_t looked = usage_turn(), told = notify_wait();
    const int64_t moments[] = {monitor.deadline, monitor.relieved, health.due, held.due, looked, helper_turn(),
                               told ? now + told : 0};
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++)
        if (moments[i] && (!next || moments[i] < next))
            next = moments[i];
    if (!next)
        return -1;
    return next <= now ? 0 : next - now > INT32_MAX ? INT32_MAX : (int)(next - now);
}

static _Noreturn void watch(int signals)
{
    for (;;) {
        struct pollfd fds[2 + USAGE_FDS + OUTPUT_FDS] = {{.fd = signals, .events = POLLIN}};
        struct pollfd *told = fds + 1, *usage = told + 1, *output = usage + USAGE_FDS;
        int timeout = patience();
        *told = notify_poll();
        usage_poll(usage);
        output_poll(output);
        if (poll(fds, sizeof fds / sizeof *fds, timeout) < 0)
            continue;
        usage_ready(usage);
        output_ready(output);
        if (told->revents)
            notify_ready();
        if (fds[0].revents)
            take_signals(signals);
    }
}

static void parse(char **argument)
{
    while (argument[0] && argument[1]) {
        const char *option = argument[0];
        char **value = argument + 1;
        int given = 1;
        while (value[given] && strncmp(value[given], "--", 2))
            given++;
        argument += 1 + given;
        if (!strcmp(option, "--pid"))
            monitor.pid = atoi(value[0]);
        else if (!strcmp(option, "--dir"))
            monitor.dir = open(value[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
        else if (!strcmp(option, "--stop-signal"))
            monitor.stop_signal = atoi(value[0]);
        else if (!strcmp(option, "--stop-timeout"))
            monitor.stop_timeout = atoi(value[0]);
        else if (!strcmp(option, "--terminal"))
            output_give(monitor.terminal = atoi(value[0]));
        else if (!strcmp(option, "--input"))
            output_give(atoi(value[0]));
        else if (!strcmp(option, "--events"))
            usage_watch_events(atoi(value[0]));
        else if (!strcmp(option, "--report") && given == 2)
            usage_add_report(value[0], atoi(value[1]));
        else if (!strcmp(option, "--oom") && given == 2)
            usage_watch_oom(atoi(value[0]), atoi(value[1]), out_of_memory);
        else if (!strcmp(option, "--oom-policy"))
            monitor.oom_policy = value[0][0];
        else if (!strcmp(option, "--pump"))
            output_add(atoi(value[0]));
        else if (!strcmp(option, "--journal") && given == 4)
            output_log(atoi(value[0]), monitor.pid, value[1], atoi(value[2]), atoi(value[3]));
        else if (!strcmp(option, "--syslog"))
            syslog_open(atoi(value[0]));
        else if (!strcmp(option, "--attach") && given == 2)
            output_listen(atoi(value[0]), atoi(value[1]));
        else if (!strcmp(option, "--helper") && given == 2)
            helper_command(value[0], value[1]);
        else if (!strcmp(option, "--drop-ins"))
            helper_watch(value[0]);
        else if (!strcmp(option, "--notify") && given == 3)
            notify_open(atoi(value[0]), monitor.pid, value[1], value[2]);
        else if (!strcmp(option, "--listening")) {
            monitor.listening = value;
            monitor.listeners = given;
        } else if (!strcmp(option, "--json") && given == 4)
            jsonlog_open(value[0], strtoull(value[1], NULL, 10), atoi(value[2]), value[3]);
        else if (!strcmp(option, "--thaw") && given == 2) {
            monitor.freezer = open(value[0], O_WRONLY | O_CLOEXEC);
            monitor.thaw = value[1];
        } else if (!strcmp(option, "--hold") && given == 2) {
            held.fd = atoi(value[0]);
            held.due = milliseconds() + atoi(value[1]);
        } else if (!strcmp(option, "--health") && given == 4) {
            health.interval = atoi(value[0]);
            health.start_interval = atoi(value[1]);
            health.launcher = value[2];
            health.id = value[3];
            health.due = milliseconds() + health.start_interval;
        } else {
            errno = EINVAL;
            fail(option);
        }
    }
    if (*argument || monitor.pid <= 0 || monitor.dir < 0) {
        if (!errno)
            errno = EINVAL;
        fail("--pid and --dir, each option with its values");
    }
}

int main(int argc, char **argv)
{
    prctl(PR_SET_NAME, "sysbox-monitor");
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGIO);
    sigprocmask(SIG_SETMASK, &awaited, NULL);
    parse(argv + (argc > 1 ? 2 : 1));
    int signals = signalfd(-1, &awaited, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        fail("signalfd");
    /* Open the terminal's slave too: the master then never hangs up while the container has it closed. */
    if (monitor.terminal >= 0)
        ioctl(monitor.terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    look(); /* the container may have ended before SIGCHLD was blocked */
    watch(signals);
}
