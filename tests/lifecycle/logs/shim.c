/* The agent stops itself right after it has flushed the first file with anything in
 * it whose path holds STOP_AFTER, so that a test can move it away at that moment;
 * SIGCONT lets it go on.
 * Every flush leaves the flushed path as a line in FLUSH_LOG. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void flushed(int fd)
{
    static int stopped;
    const char *part = getenv("STOP_AFTER"), *log = getenv("FLUSH_LOG");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 2);
    if (length <= 0)
        return;
    path[length] = '\n';
    path[length + 1] = 0;
    int to = log ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (to >= 0) {
        ssize_t ignored = write(to, path, length + 1);
        (void)ignored;
        close(to);
    }
    struct stat file;
    if (!stopped && part && strstr(path, part) && !fstat(fd, &file) && file.st_size > 0) {
        stopped = 1;
        raise(SIGSTOP);
    }
}

int fdatasync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int result = real(fd);
    flushed(fd);
    return result;
}

int fsync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int result = real(fd);
    flushed(fd);
    return result;
}
