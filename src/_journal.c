/* SPDX-License-Identifier: Apache-2.0
 *
 * sysbox.linux._journal: src/journal.c for a command in the foreground, which supervises a container itself. A
 * process can serve one container.
 */
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "journal.h"

static PyObject *py_begin(PyObject *module, PyObject *arguments)
{
    int fd, pid;
    unsigned rate, burst;
    const char *identifier;
    if (!PyArg_ParseTuple(arguments, "iisII", &fd, &pid, &identifier, &rate, &burst))
        return NULL;
    journal_open(fd, pid, identifier, rate, burst);
    Py_RETURN_NONE;
}

static PyObject *py_write(PyObject *module, PyObject *arguments)
{
    int stream;
    Py_buffer data;
    if (!PyArg_ParseTuple(arguments, "iy*", &stream, &data))
        return NULL;
    size_t taken = journal_write(stream == 1, data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    return PyLong_FromSize_t(taken);
}

static PyObject *py_end(PyObject *module, PyObject *arguments)
{
    int stream;
    if (!PyArg_ParseTuple(arguments, "i", &stream))
        return NULL;
    journal_end(stream == 1);
    Py_RETURN_NONE;
}

static PyObject *py_flush(PyObject *module, PyObject *ignored)
{
    return PyBool_FromLong(journal_flush());
}

static PyObject *py_close(PyObject *module, PyObject *ignored)
{
    journal_close();
    Py_RETURN_NONE;
}

static PyObject *py_syslog_begin(PyObject *module, PyObject *arguments)
{
    int fd;
    if (!PyArg_ParseTuple(arguments, "i", &fd))
        return NULL;
    syslog_open(fd);
    Py_RETURN_NONE;
}

static PyObject *py_syslog_ready(PyObject *module, PyObject *ignored)
{
    return PyLong_FromLong(syslog_ready());
}

static PyObject *py_syslog_close(PyObject *module, PyObject *ignored)
{
    syslog_close();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"begin", py_begin, METH_VARARGS, "begin(fd, pid, identifier, rate, burst)"},
    {"write", py_write, METH_VARARGS, "write(stream, data) -> how many bytes were taken"},
    {"end", py_end, METH_VARARGS, "end(stream): nothing more will come there"},
    {"flush", py_flush, METH_NOARGS, "flush() -> whether everything is sent"},
    {"close", py_close, METH_NOARGS, "close(): send what is left, and wait until journald has read it"},
    {"syslog_begin", py_syslog_begin, METH_VARARGS, "syslog_begin(fd): the socket of its /dev/log; after begin"},
    {"syslog_ready", py_syslog_ready, METH_NOARGS, "syslog_ready() -> a socket to wait for, until it has room, or -1"},
    {"syslog_close", py_syslog_close, METH_NOARGS, "syslog_close(): pass on what has come, and wait until it is read"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_journal",
    .m_doc = "What a container writes, to the journal by its native protocol.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__journal(void)
{
    return PyModuleDef_Init(&definition);
}
