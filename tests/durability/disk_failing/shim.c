/* A disk that fails, or that takes its time: preloaded into the agent.
 *
 * The environment's DISK_PLAN names a file with one line a rule,
 *
 *     <call> <part of the path> <errno>
 *
 * read anew at every call. <call> is open (for writing), open_read, write, flush,
 * meta, sync_folder; "flush" is fdatasync or fsync of a file, "meta" a write to a descriptor opened
 * with O_DSYNC, which flushes what it writes. For "flush" and "meta" an errno
 * of 0 means: wait until the rule is gone. The call that fails has done nothing;
 * with "short" in place of the errno, "write" takes half of it.
 * For every call that a path matches, a line goes to DISK_LOG. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SHORT -1
#define NONE -2

#define REAL(type, name, ...)                                                  \
    static type (*real)(__VA_ARGS__);                                          \
    if (!real)                                                                 \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int real_open(const char *path, int flags, mode_t mode)
{
    REAL(int, "open64", const char *, int, ...);
    return real(path, flags, mode);
}

static ssize_t real_write(int fd, const void *bytes, size_t length)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    return real(fd, bytes, length);
}

static void note(const char *call, const char *path)
{
    const char *log = getenv("DISK_LOG");
    char line[4200];
    int length = snprintf(line, sizeof line, "%s %s\n", call, path);
    int fd = log ? real_open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) {
        ssize_t ignored = real_write(fd, line, length);
        (void)ignored;
        close(fd);
    }
}

static int rule(const char *call, const char *path)
{
    const char *plan = getenv("DISK_PLAN");
    char text[4096], name[64], part[1024], what[64];
    int fd = plan ? real_open(plan, O_RDONLY | O_CLOEXEC, 0) : -1;
    int found = NONE;
    if (fd < 0)
        return NONE;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length : 0] = 0;
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (sscanf(line, "%63s %1023s %63s", name, part, what) == 3
            && !strcmp(name, call) && strstr(path, part))
            found = strcmp(what, "short") ? atoi(what) : SHORT;
    return found;
}

/* The rule for a call on a path; waits as long as it says so. */
static int ask(const char *call, const char *path)
{
    int found = rule(call, path);
    if (found == 0)
        note("waiting", path);
    while (found == 0) {
        struct timespec pause = {0, 2000000};
        nanosleep(&pause, NULL);
        found = rule(call, path);
    }
    note(call, path);
    return found;
}

static int ask_fd(const char *call, int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0 || path[0] != '/' || strstr(path, "disk-log"))
        return NONE;
    path[length] = 0;
    return ask(call, path);
}

static const char *kind_of_write(int fd)
{
    return fcntl(fd, F_GETFL) & O_DSYNC ? "meta" : "write";
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    int found = ask_fd(kind_of_write(fd), fd);
    if (found == SHORT)
        length /= 2;
    else if (found > 0)
        return errno = found, -1;
    return real(fd, bytes, length, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at)
{
    return pwrite(fd, bytes, length, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    struct stat file;
    if (fstat(fd, &file) || !S_ISREG(file.st_mode))
        return real(fd, parts, count);
    int found = ask_fd(kind_of_write(fd), fd);
    if (found > 0)
        return errno = found, -1;
    return real(fd, parts, found == SHORT ? count / 2 : count);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    struct stat file;
    int found = NONE;
    if (!fstat(fd, &file) && S_ISREG(file.st_mode))
        found = ask_fd("write", fd);
    if (found > 0)
        return errno = found, -1;
    return real_write(fd, bytes, found == SHORT ? length / 2 : length);
}

static int flush(int fd)
{
    struct stat file;
    int folder = !fstat(fd, &file) && S_ISDIR(file.st_mode);
    int found = ask_fd(folder ? "sync_folder" : "flush", fd);
    if (found > 0)
        return errno = found, -1;
    return 0;
}

int fdatasync(int fd)
{
    REAL(int, "fdatasync", int);
    return flush(fd) ? -1 : real(fd);
}

int fsync(int fd)
{
    REAL(int, "fsync", int);
    return flush(fd) ? -1 : real(fd);
}

/* "clock back <seconds>" sets the clock of the agent back. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int done = real(clock, now);
    if (clock == CLOCK_REALTIME) {
        int back = rule("clock", "back");
        now->tv_sec -= back > 0 ? back : 0;
    }
    return done;
}

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...)                                 \
    {                                                                          \
        va_list rest;                                                          \
        va_start(rest, flags);                                                 \
        mode_t mode = va_arg(rest, int);                                       \
        va_end(rest);                                                          \
        const char *call = flags & (O_WRONLY | O_RDWR) ? "open" : "open_read"; \
        int found = path[0] == '/' ? ask(call, path) : NONE;                   \
        if (found > 0)                                                         \
            return errno = found, -1;                                          \
        return real_open(path, flags, mode);                                   \
    }

OPEN(open)
OPEN(open64)
