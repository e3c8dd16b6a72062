/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "datagram.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

#ifndef TIOCOUTQ
#define TIOCOUTQ 0x5411
#endif

enum { STEP = 300000 }; /* nanoseconds between two looks whether journald has read everything */

static pid_t sender;

void datagram_from(pid_t pid)
{
    sender = pid;
}

static ssize_t send_as(int fd, const void *data, size_t length, int file)
{
    char control[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))]
        __attribute__((aligned(__alignof__(struct cmsghdr)))) = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = length ? 1 : 0, .msg_control = control,
                             .msg_controllen = CMSG_SPACE(sizeof(struct ucred))};
    struct ucred who = {.pid = sender, .uid = getuid(), .gid = getgid()};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_CREDENTIALS;
    header->cmsg_len = CMSG_LEN(sizeof who);
    memcpy(CMSG_DATA(header), &who, sizeof who);
    if (file >= 0) {
        message.msg_controllen = sizeof control;
        header = CMSG_NXTHDR(&message, header);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof file);
        memcpy(CMSG_DATA(header), &file, sizeof file);
    }
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t datagram_send(int fd, const void *data, size_t length)
{
    return send_as(fd, data, length, -1);
}

ssize_t datagram_send_file(int fd, const void *data, size_t length)
{
    int file = memfd_create("journal", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file < 0)
        return -1;
    ssize_t status = -1;
    if (write(file, data, length) == (ssize_t)length &&
        fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0)
        status = send_as(fd, NULL, 0, file);
    int error = errno;
    close(file);
    errno = error;
    return status;
}

void datagram_await_read(int fd, const void *ignored, size_t length)
{
    const struct timespec step = {.tv_nsec = STEP};
    int64_t deadline = milliseconds() + SECOND;
    int left = 0;
    /* once that is read, everything sent before has been processed */
    while (datagram_send(fd, ignored, length) < 0 && errno == EAGAIN && milliseconds() < deadline)
        nanosleep(&step, NULL);
    while (ioctl(fd, TIOCOUTQ, &left) == 0 && left > 0 && milliseconds() < deadline)
        nanosleep(&step, NULL);
}
