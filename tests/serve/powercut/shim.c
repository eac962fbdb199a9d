/* A disk that can lose power: every change to files below POWERCUT_ROOT is written down, in order, in POWERCUT_LOG.
 *
 * `disk.py` replays that log up to any moment, and keeps what a disk must keep: bytes that were synced, and names
 * whose folder was. Nothing is really synced here, for the log decides. What is written to POWERCUT_ACKS stands in the
 * log as well: what was promised, and when. A sync takes up to POWERCUT_SYNC_US, at random, so that those that are under
 * way at the same time end in any order. POWERCUT_FAULT may name a file "CALL ERRNO PART-OF-PATH": while it exists,
 * that call fails so on paths that contain the part. Loaded by LD_PRELOAD; SQLite and Python go through these calls.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536

struct head {
    char op, pad[3];
    uint32_t path, other, data;
    uint64_t inode;
    int64_t at;
};

static int log_fd = -1;
static const char *root, *acks, *fault;
static size_t root_length;
static unsigned sync_us;
static unsigned char kind[FDS]; /* 0: not ours; 1: below the root; 2: acknowledgements */

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("POWERCUT_LOG");
    root = getenv("POWERCUT_ROOT");
    acks = getenv("POWERCUT_ACKS");
    fault = getenv("POWERCUT_FAULT");
    if (getenv("POWERCUT_SYNC_US")) sync_us = atoi(getenv("POWERCUT_SYNC_US"));
    if (!path || !root) return;
    root_length = strlen(root);
    log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void note(char op, uint64_t inode, int64_t at, const char *path, const char *other, const void *data,
                 size_t length) {
    struct head head = {.op = op, .inode = inode, .at = at};
    head.path = path ? strlen(path) : 0;
    head.other = other ? strlen(other) : 0;
    head.data = length;
    struct iovec parts[] = {{&head, sizeof head}, {(void *)path, head.path}, {(void *)other, head.other},
                            {(void *)data, length}};
    if (syscall(SYS_writev, log_fd, parts, 4) != (long)(sizeof head + head.path + head.other + length)) abort();
}

static int below(const char *path) {
    return log_fd >= 0 && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int path_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    if (length < 0) return 0;
    out[length] = 0;
    return 1;
}

/* an absolute path; 0 where it is none of ours */
static int resolve(int folder, const char *path, char *out) {
    if (log_fd < 0) return 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX];
        if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(folder, base)) return 0;
        if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) abort();
    }
    return below(out);
}

static int fails(const char *call, int fd) {
    if (!fault || log_fd < 0 || fd < 0 || fd >= FDS || kind[fd] != 1) return 0;
    int file = syscall(SYS_openat, AT_FDCWD, fault, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    char text[256] = "", what[16], part[128], path[PATH_MAX];
    int code = 0;
    long length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    if (length <= 0 || sscanf(text, "%15s %d %127s", what, &code, part) != 3) return 0;
    if (strcmp(what, call) || !path_of(fd, path) || !strstr(path, part)) return 0;
    errno = code;
    return 1;
}

static uint64_t inode_of(int fd) {
    struct stat found;
    if (fstat(fd, &found)) abort();
    return found.st_ino;
}

static int ours(int fd) { return log_fd >= 0 && fd >= 0 && fd < FDS && kind[fd]; }

static int do_open(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int inside = resolve(folder, name, path), there = 1;
    struct stat before;
    if (inside && (flags & O_CREAT)) there = !fstatat(folder, name, &before, 0);
    int fd = syscall(SYS_openat, folder, name, flags, mode);
    if (fd < 0 || fd >= FDS || log_fd < 0) return fd;
    kind[fd] = inside ? 1 : (acks && !strcmp(name, acks)) ? 2 : 0;
    if (inside) {
        uint64_t inode = inode_of(fd);
        if (!there) note('C', inode, 0, path, 0, 0, 0);
        else if (flags & O_TRUNC) note('T', inode, 0, 0, 0, 0, 0);
    }
    return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); \
    mode = va_arg(more, mode_t); va_end(more); }
int open(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }
int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    if (fd >= 0 && fd < FDS) kind[fd] = 0;
    return syscall(SYS_close, fd);
}
int dup(int fd) {
    int other = syscall(SYS_dup, fd);
    if (other >= 0 && other < FDS && fd < FDS) kind[other] = kind[fd];
    return other;
}
int dup3(int fd, int other, int flags) {
    int made = syscall(SYS_dup3, fd, other, flags);
    if (made >= 0 && made < FDS && fd < FDS) kind[made] = kind[fd];
    return made;
}
int dup2(int fd, int other) { return fd == other ? fd : dup3(fd, other, 0); }

static void wrote(int fd, int64_t at, const void *data, long length) {
    if (length <= 0 || !ours(fd)) return;
    if (kind[fd] == 2) note('A', 0, 0, 0, 0, data, length);
    else note('W', inode_of(fd), at, 0, 0, data, length);
}

ssize_t write(int fd, const void *data, size_t length) {
    if (fails("write", fd)) return -1;
    ssize_t done = syscall(SYS_write, fd, data, length);
    if (done > 0 && ours(fd)) wrote(fd, kind[fd] == 1 ? lseek(fd, 0, SEEK_CUR) - done : 0, data, done);
    return done;
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
    if (fails("write", fd)) return -1;
    ssize_t done = syscall(SYS_pwrite64, fd, data, length, at);
    wrote(fd, at, data, done);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return pwrite64(fd, data, length, at); }

static ssize_t many(int fd, const struct iovec *parts, int count, int64_t at) {
    ssize_t all = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = at < 0 ? write(fd, parts[i].iov_base, parts[i].iov_len)
                              : pwrite64(fd, parts[i].iov_base, parts[i].iov_len, at + all);
        if (done < 0) return all ? all : done;
        all += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return all;
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return ours(fd) ? many(fd, parts, count, -1) : syscall(SYS_writev, fd, parts, count);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return many(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return many(fd, parts, count, at); }

/* bytes that the kernel copied by itself are read back */
static void copied(int fd, int64_t at, ssize_t length) {
    if (length <= 0 || !ours(fd) || kind[fd] != 1) return;
    char path[PATH_MAX], *data = malloc(length);
    if (!data || !path_of(fd, path)) abort();
    int again = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (again < 0 || syscall(SYS_pread64, again, data, length, at) != length) abort();
    syscall(SYS_close, again);
    note('W', inode_of(fd), at, 0, 0, data, length);
    free(data);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t count) {
    ssize_t done = syscall(SYS_sendfile, out, in, at, count);
    if (done > 0 && ours(out)) copied(out, lseek(out, 0, SEEK_CUR) - done, done);
    return done;
}
ssize_t sendfile(int out, int in, off_t *at, size_t count) { return sendfile64(out, in, at, count); }
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t count, unsigned flags) {
    ssize_t done = syscall(SYS_copy_file_range, in, in_at, out, out_at, count, flags);
    if (done > 0 && ours(out)) copied(out, (out_at ? *out_at : lseek(out, 0, SEEK_CUR)) - done, done);
    return done;
}

int ftruncate64(int fd, off64_t length) {
    int result = syscall(SYS_ftruncate, fd, length);
    if (!result && ours(fd)) note('T', inode_of(fd), length, 0, 0, 0, 0);
    return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }
int truncate(const char *path, off_t length) {
    int fd = open(path, O_WRONLY);
    if (fd < 0) return -1;
    int result = ftruncate64(fd, length);
    close(fd);
    return result;
}
int posix_fallocate64(int fd, off64_t at, off64_t length) {
    struct stat now;
    if (syscall(SYS_fallocate, fd, 0, at, length)) return errno;
    if (ours(fd) && !fstat(fd, &now)) note('T', now.st_ino, now.st_size, 0, 0, 0, 0);
    return 0;
}
int posix_fallocate(int fd, off_t at, off_t length) { return posix_fallocate64(fd, at, length); }
int fallocate(int fd, int mode, off_t at, off_t length) {
    if (ours(fd) && mode) { errno = EOPNOTSUPP; return -1; }
    int code = ours(fd) ? posix_fallocate64(fd, at, length) : 0;
    if (code) errno = code;
    return ours(fd) ? (code ? -1 : 0) : syscall(SYS_fallocate, fd, mode, at, length);
}

int fsync(int fd) {
    if (fails("fsync", fd)) return -1;
    if (!ours(fd)) return syscall(SYS_fsync, fd);
    if (sync_us) usleep(rand() % sync_us);
    note('S', inode_of(fd), 0, 0, 0, 0, 0);
    return 0;
}
int fdatasync(int fd) { return fsync(fd); }

static int do_rename(int from, const char *name, int to, const char *other, unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    int inside = resolve(from, name, source), into = resolve(to, other, target);
    int result = syscall(SYS_renameat2, from, name, to, other, flags);
    if (!result && (inside || into)) {
        if (inside != into || flags & 2) abort(); /* not modelled */
        note('R', 0, 0, source, target, 0, 0);
    }
    return result;
}
int rename(const char *a, const char *b) { return do_rename(AT_FDCWD, a, AT_FDCWD, b, 0); }
int renameat(int x, const char *a, int y, const char *b) { return do_rename(x, a, y, b, 0); }
int renameat2(int x, const char *a, int y, const char *b, unsigned flags) { return do_rename(x, a, y, b, flags); }

int unlinkat(int at, const char *name, int flags) {
    char path[PATH_MAX];
    int inside = resolve(at, name, path), result = syscall(SYS_unlinkat, at, name, flags);
    if (!result && inside) note('U', 0, 0, path, 0, 0, 0);
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) { return unlink(path) ? rmdir(path) : 0; }

int mkdirat(int at, const char *name, mode_t mode) {
    char path[PATH_MAX];
    struct stat made;
    int inside = resolve(at, name, path), result = syscall(SYS_mkdirat, at, name, mode);
    if (!result && inside && !fstatat(at, name, &made, 0)) note('M', made.st_ino, 0, path, 0, 0, 0);
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int linkat(int x, const char *a, int y, const char *b, int flags) {
    char source[PATH_MAX], target[PATH_MAX];
    int inside = resolve(x, a, source), into = resolve(y, b, target);
    int result = syscall(SYS_linkat, x, a, y, b, flags);
    if (!result && (inside || into)) {
        if (inside != into) abort(); /* not modelled */
        note('L', 0, 0, source, target, 0, 0);
    }
    return result;
}
int link(const char *a, const char *b) { return linkat(AT_FDCWD, a, AT_FDCWD, b, 0); }

int setxattr(const char *name, const char *key, const void *value, size_t length, int flags) {
    char path[PATH_MAX];
    struct stat found;
    int result = syscall(SYS_setxattr, name, key, value, length, flags);
    if (!result && resolve(AT_FDCWD, name, path) && !stat(path, &found)) note('X', found.st_ino, 0, 0, key, value, length);
    return result;
}
