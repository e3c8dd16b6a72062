/* SPDX-License-Identifier: Apache-2.0
 *
 * sysbox.linux._notify: src/notify.c for a command in the foreground, which supervises a container itself.
 */
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "notify.h"

#include <string.h>

static PyObject *py_begin(PyObject *module, PyObject *arguments)
{
    int fd, pid;
    const char *cgroup, *address;
    static char kept[4096];
    if (!PyArg_ParseTuple(arguments, "iiss", &fd, &pid, &cgroup, &address))
        return NULL;
    if (strlen(cgroup) >= sizeof kept)
        return PyErr_Format(PyExc_ValueError, "the path of the cgroup is too long");
    strcpy(kept, cgroup);
    notify_open(fd, pid, kept, address);
    Py_RETURN_NONE;
}

static PyObject *py_ready(PyObject *module, PyObject *ignored)
{
    notify_ready();
    struct pollfd awaited = notify_poll();
    int full = awaited.events == POLLOUT ? awaited.fd : -1;
    return Py_BuildValue("iL", full, (long long)notify_wait());
}

static PyObject *py_close(PyObject *module, PyObject *ignored)
{
    notify_close();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"begin", py_begin, METH_VARARGS, "begin(fd, pid, cgroup, address)"},
    {"ready", py_ready, METH_NOARGS, "ready() -> (a socket to wait for, until it has room, or -1, milliseconds to wait, or 0)"},
    {"close", py_close, METH_NOARGS, "close(): pass on what has come"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_notify",
    .m_doc = "What a container tells systemd, passed on.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__notify(void)
{
    return PyModuleDef_Init(&definition);
}
