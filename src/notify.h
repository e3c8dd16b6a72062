/* SPDX-License-Identifier: Apache-2.0
 *
 * What processes of the container tell systemd with sd_notify(3), passed on in the name of this process. A process
 * can serve one container.
 */
#pragma once

#include <poll.h>
#include <stdint.h>
#include <sys/types.h>

/* in: the container's socket, with SO_PASSCRED; pid: its first process; cgroup: the path of its scope, which all of
 * its processes are in or below; address: $NOTIFY_SOCKET of the service. The texts must stay. */
void notify_open(int in, pid_t pid, const char *cgroup, const char *address);
struct pollfd notify_poll(void);
/* Pass on what has come. */
void notify_ready(void);
/* Milliseconds until it is to be called although nothing is ready, 0 for none. */
int64_t notify_wait(void);
void notify_close(void); /* what has come by now is passed on, within a second */
