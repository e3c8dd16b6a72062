/* SPDX-License-Identifier: Apache-2.0
 *
 * sysbox.linux._layer: the plain part of a layer, many small files with one call.
 *
 * A tar archive is for the most part runs of regular files and symbolic links in one directory. `files` makes
 * such a run. It stops at the first entry that is anything else: an extended header, a whiteout, a name in
 * another directory, a number that is not plain octal, a name that is taken, a full disk. Of that entry it leaves
 * nothing, and image/layer.py, which knows every kind of entry and every error, goes on with it. So nothing here
 * reports an error, and what this file does not understand it does not do.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 512, HOLE = 1 << 16, NAME = 255 };

/* POSIX.1-1988, ustar */
struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], kind, link[100], magic[8];
    char user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is one block");

struct entry {
    const struct header *header;
    char base[NAME + 1]; /* in the directory */
    uint64_t mode, uid, gid, size, mtime;
};

/* The number in an octal field that ends with NULs or spaces; 0 if it is anything else, or empty. */
static int octal(const char *field, size_t length, uint64_t *value)
{
    size_t at = 0, first;
    while (at < length && field[at] == ' ')
        at++;
    first = at;
    for (*value = 0; at < length && field[at] >= '0' && field[at] <= '7'; at++)
        *value = *value << 3 | (uint64_t)(field[at] - '0');
    if (at == first)
        return 0;
    while (at < length && field[at] == ' ')
        at++;
    return at == length || !field[at];
}

static int sum_fits(const struct header *header)
{
    const unsigned char *bytes = (const unsigned char *)header;
    uint64_t sum = ' ' * sizeof header->sum, given;
    for (size_t at = 0; at < BLOCK; at++)
        sum += bytes[at];
    for (size_t at = 0; at < sizeof header->sum; at++)
        sum -= (unsigned char)header->sum[at];
    return octal(header->sum, sizeof header->sum, &given) && given == sum;
}

/* Take the name apart: it must be `directory`, as it is, and one component that means nothing else. */
static int name_fits(struct entry *entry, const char *directory, size_t length)
{
    const struct header *header = entry->header;
    char name[sizeof header->prefix + 1 + sizeof header->name + 1];
    size_t size = 0;
    /* only POSIX has a prefix; GNU's magic is "ustar  " */
    if (memcmp(header->magic, "ustar\0" "00", sizeof header->magic) == 0 && header->prefix[0]) {
        size = strnlen(header->prefix, sizeof header->prefix);
        memcpy(name, header->prefix, size);
        name[size++] = '/';
    }
    size_t rest = strnlen(header->name, sizeof header->name);
    memcpy(name + size, header->name, rest);
    size += rest;
    if (size <= length || size - length > NAME || memcmp(name, directory, length) != 0)
        return 0;
    size -= length;
    memcpy(entry->base, name + length, size);
    entry->base[size] = 0;
    return !memchr(entry->base, '/', size) && strcmp(entry->base, ".") != 0 && strcmp(entry->base, "..") != 0 &&
           strncmp(entry->base, ".wh.", 4) != 0;
}

static int is_plain(struct entry *entry, const char *directory, size_t length)
{
    const struct header *header = entry->header;
    if (header->kind != '0' && header->kind != 0 && header->kind != '2')
        return 0;
    if (!sum_fits(header) || !name_fits(entry, directory, length) ||
        !octal(header->mode, sizeof header->mode, &entry->mode) ||
        !octal(header->uid, sizeof header->uid, &entry->uid) ||
        !octal(header->gid, sizeof header->gid, &entry->gid) ||
        !octal(header->size, sizeof header->size, &entry->size) ||
        !octal(header->mtime, sizeof header->mtime, &entry->mtime))
        return 0;
    if (header->kind == '2')
        entry->size = 0;
    entry->mode &= 07777;
    return entry->mtime < (uint64_t)1 << 34; /* the most that every file system can store */
}

/* With holes for blocks of zeros, as sysbox.image.source.write_sparse. */
static int write_content(int fd, const char *data, size_t size)
{
    static const char zeros[HOLE];
    size_t start = 0, at = 0, end;
    int holes = 0;
    while (start < size) {
        for (end = start; size - end >= HOLE && memcmp(data + end, zeros, HOLE) == 0; end += HOLE)
            holes = 1;
        at = end;
        while (end < size && !(size - end >= HOLE && memcmp(data + end, zeros, HOLE) == 0))
            end += size - end >= HOLE ? HOLE : size - end;
        for (; at < end;) {
            ssize_t count = pwrite(fd, data + at, end - at, (off_t)at);
            if (count <= 0)
                return 0;
            at += (size_t)count;
        }
        start = end;
    }
    return !holes || ftruncate(fd, (off_t)size) == 0;
}

/* Each of the two makes the entry; 0 where it cannot, or not completely, and then there is nothing of it. */

static int make_file(int directory, const struct entry *entry, const char *data, const struct timespec *times)
{
    int fd = openat(directory, entry->base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    (mode_t)(entry->mode & 0777));
    if (fd < 0)
        return 0;
    int good = write_content(fd, data, entry->size) &&
               ((!entry->uid && !entry->gid) || fchown(fd, (uid_t)entry->uid, (gid_t)entry->gid) == 0) &&
               /* after fchown(2), which clears these bits */
               (!(entry->mode & 07000) || fchmod(fd, (mode_t)entry->mode) == 0) && futimens(fd, times) == 0;
    close(fd);
    if (!good)
        unlinkat(directory, entry->base, 0);
    return good;
}

static int make_link(int directory, const struct entry *entry, const struct timespec *times)
{
    char target[sizeof entry->header->link + 1] = {0};
    memcpy(target, entry->header->link, sizeof entry->header->link);
    if (!*target || symlinkat(target, directory, entry->base) < 0)
        return 0;
    int good = ((!entry->uid && !entry->gid) || fchownat(directory, entry->base, (uid_t)entry->uid,
                                                         (gid_t)entry->gid, AT_SYMLINK_NOFOLLOW) == 0) &&
               utimensat(directory, entry->base, times, AT_SYMLINK_NOFOLLOW) == 0;
    if (!good)
        unlinkat(directory, entry->base, 0);
    return good;
}

struct run {
    const char *data, *prefix; /* the archive from the next header on; the names' directory, as in the archive */
    size_t length, prefix_length;
    int directory;
    unsigned long long entries, bytes; /* how many at most; counted down */
};

/* Make entries until one is not plain or not all there; returns the bytes of the archive that were used. */
static size_t make_run(struct run *run)
{
    size_t at = 0;
    while (run->length - at >= BLOCK && run->entries) {
        struct entry entry = {.header = (const struct header *)(run->data + at)};
        if (!is_plain(&entry, run->prefix, run->prefix_length))
            break;
        size_t blocks = (size_t)(entry.size + BLOCK - 1) / BLOCK * BLOCK;
        if (entry.size > run->bytes || blocks > run->length - at - BLOCK)
            break;
        struct timespec time = {.tv_sec = (time_t)entry.mtime}, times[2] = {time, time};
        if (!(entry.header->kind == '2' ? make_link(run->directory, &entry, times)
                                        : make_file(run->directory, &entry, run->data + at + BLOCK, times)))
            break;
        at += BLOCK + blocks;
        run->entries--;
        run->bytes -= entry.size;
    }
    return at;
}

static PyObject *layer_files(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    Py_ssize_t prefix_length;
    struct run run;
    if (!PyArg_ParseTuple(arguments, "y*iy#KK", &data, &run.directory, &run.prefix, &prefix_length, &run.entries,
                          &run.bytes))
        return NULL;
    unsigned long long entries = run.entries, bytes = run.bytes;
    size_t used;
    run.data = data.buf;
    run.length = (size_t)data.len;
    run.prefix_length = (size_t)prefix_length;
    Py_BEGIN_ALLOW_THREADS
    used = make_run(&run);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return Py_BuildValue("(nKK)", (Py_ssize_t)used, entries - run.entries, bytes - run.bytes);
}

static PyMethodDef methods[] = {
    {"files", layer_files, METH_VARARGS,
     "files(data, directory_fd, prefix, entries, bytes) -> (used, entries, bytes)"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_layer",
    .m_doc = "The plain part of a layer: many small files with one call.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__layer(void)
{
    return PyModuleDef_Init(&definition);
}
