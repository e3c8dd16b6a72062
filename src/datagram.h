/* SPDX-License-Identifier: Apache-2.0
 *
 * Datagrams to journald in the name of the container's first process. journald files a message under the unit of the
 * process that it names, which root may choose (unix(7), SCM_CREDENTIALS). That process is a child of ours and not
 * reaped yet, so its pid cannot have been reused.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

void datagram_from(pid_t pid);
/* Both as send(2): never wait, -1 and errno if nothing was sent. */
ssize_t datagram_send(int fd, const void *data, size_t length);
ssize_t datagram_send_file(int fd, const void *data, size_t length); /* what is too long, in a sealed memfd */
/* Wait until journald has read what was sent to `fd`, for a second at most; `ignored` is a datagram that it ignores. */
void datagram_await_read(int fd, const void *ignored, size_t length);
