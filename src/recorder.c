/* SPDX-License-Identifier: Apache-2.0
 *
 * sysbox-recorder: notes the system calls of a container, and lets each go on (seccomp_unotify(2)).
 *
 *     sysbox-recorder SOCKET TABLE PARENT
 *
 * SOCKET is a datagram socket; each message brings the listener of a filter, for the first process or one of `exec`.
 * TABLE is a file of RECORDER_WORDS words of 64 bits: zero, or the architecture (AUDIT_ARCH_*) times 2^32 plus the
 * call's number. A call is in the table before it is made, so whoever reads the table after the last process has
 * ended misses none, even if this program is killed; calls fail with ENOSYS then.
 *
 * It ends when no process has a filter any more, or, until it has a listener, with PARENT. In the first case it cuts
 * off what TABLE has behind the words: that is left where it was killed.
 */
#define _GNU_SOURCE
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/seccomp.h, which the compiler for static programs lacks */
struct call {
    int32_t number;
    uint32_t architecture;
    uint64_t instruction, arguments[6];
};
struct notification {
    uint64_t id;
    uint32_t pid, flags;
    struct call call;
};
struct response {
    uint64_t id;
    int64_t value;
    int32_t error;
    uint32_t flags;
};
#define NOTIF_RECV _IOWR('!', 0, struct notification)
#define NOTIF_SEND _IOWR('!', 1, struct response)
#define NOTIF_SET_FLAGS _IOW('!', 4, uint64_t)
enum {
    CONTINUE = 1,     /* SECCOMP_USER_NOTIF_FLAG_CONTINUE */
    SYNC_WAKE_UP = 1, /* SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP */
};

enum {
    WORDS = 16384,      /* as in sysbox/run/recording.py; three architectures fill less than half */
    NUMBERS = 2048,     /* no architecture has more */
    LISTENERS = 1000,   /* at a time; the calls of more processes of `exec` fail with ENOSYS */
    PRIVATE = 0xf0000,  /* numbers of ARM alone begin here (__ARM_NR_BASE) */
    X32 = 0x40000000,   /* __X32_SYSCALL_BIT */
    SPACE = 1024,       /* the kernel's structures may be longer than those that we know */
};

static uint64_t *table;
static struct pollfd polled[1 + LISTENERS]; /* the socket, then listeners */
/* of each listener: the architecture of the process that loaded the filter, until that has executed its command */
static uint32_t loading[1 + LISTENERS];
static nfds_t count = 1;

static void note(uint32_t architecture, uint32_t number)
{
    const uint32_t plain = number & ~(uint32_t)X32;
    if (plain >= NUMBERS && (number < PRIVATE || number >= PRIVATE + 16))
        return; /* no call: a container without a filter of its own may ask for any number */
    const uint64_t word = (uint64_t)architecture << 32 | number;
    size_t at = (size_t)(word * 0x9e3779b97f4a7c15U >> 50); /* 14 bits */
    for (size_t tried = 0; tried < WORDS && table[at] != word; tried++, at = (at + 1) % WORDS)
        if (!table[at]) {
            table[at] = word;
            return;
        }
}

/* What sysbox does to load the container's own filter is not the container's. */
static int is_own(nfds_t at, const struct call *call)
{
    if (call->architecture != loading[at])
        return 0;
    if (call->number == SYS_execve)
        loading[at] = 0;
    return call->number == SYS_seccomp;
}

static void answer(nfds_t at)
{
    static union {
        struct notification notification;
        char space[SPACE];
    } got;
    static union {
        struct response response;
        char space[SPACE];
    } given;
    memset(&got, 0, sizeof got);
    if (ioctl(polled[at].fd, NOTIF_RECV, &got) < 0)
        return; /* it has been interrupted by a signal, or killed */
    const struct call *call = &got.notification.call;
    if (loading[at] == 1)
        loading[at] = call->architecture;
    if (!is_own(at, call))
        note(call->architecture, (uint32_t)call->number);
    memset(&given, 0, sizeof given);
    given.response.id = got.notification.id;
    given.response.flags = CONTINUE;
    ioctl(polled[at].fd, NOTIF_SEND, &given); /* ENOENT: as above */
}

static void take(int socket)
{
    char byte;
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } rights;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0)
        return;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int)))
        return;
    int fd;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    if (count > LISTENERS) {
        close(fd);
        return;
    }
    prctl(PR_SET_PDEATHSIG, 0);
    /* who calls waits for us, and we for who calls: one CPU is quicker (Linux 6.6, else EINVAL) */
    ioctl(fd, NOTIF_SET_FLAGS, (unsigned long)SYNC_WAKE_UP);
    loading[count] = 1;
    polled[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void forget(nfds_t at)
{
    close(polled[at].fd);
    count--;
    polled[at] = polled[count];
    loading[at] = loading[count];
}

int main(int argc, char **argv)
{
    prctl(PR_SET_NAME, "sysbox-recorder");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc != 4 || getppid() != atoi(argv[3]))
        return FAILED;
    /* those of the terminal, and of the service's stop: the container still runs then */
    setsid();
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    table = mmap(NULL, WORDS * sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[2]), 0);
    if (table == MAP_FAILED)
        return FAILED;
    polled[0] = (struct pollfd){.fd = atoi(argv[1]), .events = POLLIN};
    for (int listened = 0; !listened || count > 1;) {
        if (poll(polled, count, -1) < 0)
            continue;
        for (nfds_t at = count - 1; at > 0; at--)
            if (polled[at].revents & POLLIN)
                answer(at);
            else if (polled[at].revents)
                forget(at);
        if (polled[0].revents) {
            take(polled[0].fd);
            listened |= count > 1;
        }
    }
    return ftruncate(atoi(argv[2]), (off_t)(WORDS * sizeof *table)) < 0 ? FAILED : 0;
}
