/* Writes down, in order, every call by which a process changes files: loaded
 * with LD_PRELOAD in front of the C library. A record is written once its call
 * has succeeded and before it returns, so that whatever the process says later
 * comes after it.
 *
 * A record: one byte of kind, three bytes of nothing, u32 length of the data,
 * u64 a, u64 b, u64 offset, then the data. All in the machine's byte order.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct head {
    uint8_t kind;
    uint8_t pad[3];
    uint32_t length;
    uint64_t a, b, offset;
};

static int log_fd = -1;
/* Calls until the process kills itself; 0: it does not. */
static long calls_left;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("ECHOPOST_RECORDING");
    if (path)
        log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    const char *calls = getenv("ECHOPOST_CALLS");
    if (calls)
        calls_left = atol(calls);
}

static void note_parts(char kind, uint64_t a, uint64_t b, uint64_t offset,
                       const struct iovec *parts, int count, size_t length) {
    if (log_fd < 0)
        return;
    int saved = errno;
    struct head head = {kind, {0}, (uint32_t)length, a, b, offset};
    struct iovec all[1 + 64] = {{&head, sizeof head}};
    int used = 1;
    for (int i = 0; i < count && length > 0; i++) {
        if (used == 65)
            abort();
        all[used] = parts[i];
        if (all[used].iov_len > length)
            all[used].iov_len = length;
        length -= all[used++].iov_len;
    }
    /* A log with a hole would prove nothing. */
    ssize_t whole = 0;
    for (int i = 0; i < used; i++)
        whole += all[i].iov_len;
    if (syscall(SYS_writev, log_fd, all, used) != whole)
        abort();
    if (calls_left > 0 && --calls_left == 0)
        kill(getpid(), SIGKILL);
    errno = saved;
}

static void note(char kind, uint64_t a, uint64_t b, uint64_t offset, const char *name) {
    struct iovec part = {(void *)name, strlen(name)};
    note_parts(kind, a, b, offset, &part, 1, part.iov_len);
}

static int find(int fd, struct stat *found) {
    int saved = errno;
    int failed = syscall(SYS_newfstatat, fd, "", found, AT_EMPTY_PATH);
    errno = saved;
    return failed == 0;
}

/* The inode of the folder that a path leads through, and the last name. */
static uint64_t folder_of(int at, const char *path, char *name) {
    char copy[4096];
    struct stat found;
    int saved = errno;
    strncpy(copy, path, sizeof copy - 1);
    copy[sizeof copy - 1] = 0;
    strcpy(name, basename(copy));
    strncpy(copy, path, sizeof copy - 1);
    copy[sizeof copy - 1] = 0;
    uint64_t inode = 0;
    if (syscall(SYS_newfstatat, at, dirname(copy), &found, 0) == 0)
        inode = found.st_ino;
    errno = saved;
    return inode;
}

/* 'W': a write: inode, whether it is durable by itself, offset, the bytes. */
static void wrote(int fd, off_t offset, const struct iovec *parts, int count, ssize_t length) {
    struct stat found;
    if (length <= 0 || !find(fd, &found) || !S_ISREG(found.st_mode))
        return;
    int flags = syscall(SYS_fcntl, fd, F_GETFL);
    if (offset < 0)
        offset = syscall(SYS_lseek, fd, 0, SEEK_CUR) - length;
    note_parts('W', found.st_ino, (flags & O_DSYNC) != 0, offset, parts, count, length);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    ssize_t done = syscall(SYS_write, fd, bytes, length);
    struct iovec part = {(void *)bytes, length};
    wrote(fd, -1, &part, 1, done);
    return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    ssize_t done = syscall(SYS_pwrite64, fd, bytes, length, offset);
    struct iovec part = {(void *)bytes, length};
    wrote(fd, offset, &part, 1, done);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return pwrite64(fd, bytes, length, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t done = syscall(SYS_writev, fd, parts, count);
    wrote(fd, -1, parts, count, done);
    return done;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    ssize_t done = syscall(SYS_pwritev, fd, parts, count, offset, 0);
    wrote(fd, offset, parts, count, done);
    return done;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return pwritev64(fd, parts, count, offset);
}

/* 'S': a flush of all that was written: inode. */
static void flushed(int fd) {
    struct stat found;
    if (find(fd, &found))
        note('S', found.st_ino, 0, 0, "");
}

int fsync(int fd) {
    int failed = syscall(SYS_fsync, fd);
    if (!failed)
        flushed(fd);
    return failed;
}

int fdatasync(int fd) {
    int failed = syscall(SYS_fdatasync, fd);
    if (!failed)
        flushed(fd);
    return failed;
}

/* 'T': a new length: inode, length. */
int ftruncate64(int fd, off64_t length) {
    struct stat found;
    int failed = syscall(SYS_ftruncate, fd, length);
    if (!failed && find(fd, &found))
        note('T', found.st_ino, length, 0, "");
    return failed;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

/* 'C': a new file: folder, inode, name. */
static int opened(int at, const char *path, int flags, mode_t mode) {
    struct stat found;
    char name[4096];
    int saved = errno;
    int creates = (flags & O_CREAT) &&
                  syscall(SYS_newfstatat, at, path, &found, AT_SYMLINK_NOFOLLOW) != 0;
    errno = saved;
    int fd = syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && creates && find(fd, &found)) {
        uint64_t folder = folder_of(at, path, name);
        note('C', folder, found.st_ino, 0, name);
    }
    if (fd >= 0 && (flags & O_TRUNC) && !creates && find(fd, &found))
        note('T', found.st_ino, 0, 0, "");
    return fd;
}

#define MODE(flags)                                                                                \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        mode = va_arg(more, mode_t);                                                               \
        va_end(more);                                                                              \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return opened(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    return opened(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    return opened(at, path, flags, mode);
}

/* 'D': a new folder: folder, inode, name. */
int mkdir(const char *path, mode_t mode) {
    struct stat found;
    char name[4096];
    int failed = syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (!failed && syscall(SYS_newfstatat, AT_FDCWD, path, &found, 0) == 0) {
        uint64_t folder = folder_of(AT_FDCWD, path, name);
        note('D', folder, found.st_ino, 0, name);
    }
    return failed;
}

/* 'U': a name is gone: folder, name. */
int unlinkat(int at, const char *path, int flags) {
    char name[4096];
    int failed = syscall(SYS_unlinkat, at, path, flags);
    if (!failed) {
        uint64_t folder = folder_of(at, path, name);
        note('U', folder, 0, 0, name);
    }
    return failed;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

/* 'R': a rename: both folders, both names with a zero byte between. */
int rename(const char *from, const char *to) {
    char names[2 * 4096];
    int failed = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (!failed) {
        uint64_t left = folder_of(AT_FDCWD, from, names);
        size_t first = strlen(names) + 1;
        uint64_t entered = folder_of(AT_FDCWD, to, names + first);
        struct iovec part = {names, first + strlen(names + first)};
        note_parts('R', left, entered, 0, &part, 1, part.iov_len);
    }
    return failed;
}
