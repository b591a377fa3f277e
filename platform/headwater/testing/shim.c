/* Preloaded into a process under test: writes down every change below a folder, and lets calls fail or do nothing.
 *
 *   gcc -shared -fPIC -O2 -o shim.so shim.c -ldl -lpthread          (see shim.py)
 *
 * hw_shim_trace(root, file): from now on every call that changes something below `root` is appended to `file`, in
 * the order in which the calls took effect (one lock is held around each call and its record), with the inode, so
 * that renames, descriptors shared by threads and names used twice stay apart. What the model in power.py does not
 * know (a shared writable mapping, a link, a sparse write) is recorded as 'X', which the model refuses.
 *
 * hw_shim_rules(text): "call:glob:action:first:count" joined by ';'. The calls `first` .. `first+count-1` that meet
 * the glob (1-based; count 0 = all from then on) do not happen: they return the error, or 'skip' returns success
 * without doing anything, 'short' writes half. A failed fsync is recorded ('E'): the pages that it should have
 * written are clean afterwards and on no disk, as Linux leaves them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define RULES_MAX 16

struct rule { char call[16], glob[512]; int error, skip, brief; long first, count, seen; };
struct record { uint8_t op; uint8_t zero[3]; uint32_t path, other, data; uint64_t inode; int64_t offset; };

static char root[4096];
static size_t root_length;
static int trace = -1;
static struct rule rules[RULES_MAX];
static int rule_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void enter(void) { pthread_mutex_lock(&lock); }
static void leave(void) { int kept = errno; pthread_mutex_unlock(&lock); errno = kept; }
static int inside(const char *path) {
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static ssize_t plain_write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = REAL(write);
    return real(fd, data, size);
}

static void put(char op, const char *path, const char *other, uint64_t inode, int64_t offset, const void *data, size_t size) {
    if (trace < 0) return;
    int kept = errno;
    struct record head = {.op = op, .path = strlen(path), .other = strlen(other), .data = size, .inode = inode, .offset = offset};
    size_t whole = sizeof head + head.path + head.other + size;
    char *text = malloc(whole), *end = text;
    end = mempcpy(end, &head, sizeof head);
    end = mempcpy(end, path, head.path);
    end = mempcpy(end, other, head.other);
    mempcpy(end, data, size);
    if (plain_write(trace, text, whole) != (ssize_t)whole) abort();  /* a trace with a hole proves nothing */
    free(text);
    errno = kept;
}

/* The path of a descriptor when it is below the root; its inode beside it. */
static int path_of(int fd, char *path, uint64_t *inode, int *folder) {
    if (!root_length || fd == trace) return 0;
    char link[64];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    errno = kept;
    if (length <= 0) return 0;
    path[length] = 0;
    if (!inside(path)) return 0;
    struct stat found;
    fstat(fd, &found);
    *inode = found.st_ino;
    *folder = S_ISDIR(found.st_mode);
    return 1;
}

static int absolute(int at, const char *path, char *out) {
    int kept = errno;
    if (path[0] == '/') snprintf(out, 4096, "%s", path);
    else {
        char folder[4096];
        if (at == AT_FDCWD) { if (!getcwd(folder, sizeof folder)) return 0; }
        else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            ssize_t length = readlink(link, folder, sizeof folder - 1);
            if (length <= 0) return 0;
            folder[length] = 0;
        }
        if (snprintf(out, 4096, "%s/%s", folder, path) >= 4096) abort();
    }
    errno = kept;
    return inside(out);
}

/* 0: the call goes on. 1: it returns `*result` now. 2: it is cut short. */
static int meets(const char *call, const char *path, ssize_t *result) {
    for (int i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->call, call) || fnmatch(rule->glob, path, 0)) continue;
        rule->seen++;
        if (rule->seen < rule->first || (rule->count && rule->seen >= rule->first + rule->count)) continue;
        if (rule->brief) return 2;
        *result = rule->skip ? 0 : -1;
        if (!rule->skip) errno = rule->error;
        return 1;
    }
    return 0;
}

int hw_shim_trace(const char *folder, const char *file) {
    enter();
    int (*real)(const char *, int, ...) = REAL(open);
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    trace = *file ? real(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    leave();
    return *file ? trace : 0;
}

int hw_shim_rules(const char *text) {
    enter();
    rule_count = 0;
    char *copy = strdup(text), *outer, *part;
    for (part = strtok_r(copy, ";", &outer); part; part = strtok_r(NULL, ";", &outer)) {
        struct rule *rule = &rules[rule_count];
        char action[16];
        memset(rule, 0, sizeof *rule);
        if (rule_count == RULES_MAX
            || sscanf(part, "%15[^:]:%511[^:]:%15[^:]:%ld:%ld", rule->call, rule->glob, action, &rule->first, &rule->count) != 5)
            abort();
        rule->skip = !strcmp(action, "skip");
        rule->brief = !strcmp(action, "short");
        rule->error = !strcmp(action, "EIO") ? EIO : !strcmp(action, "ENOSPC") ? ENOSPC : !strcmp(action, "EMFILE") ? EMFILE
                    : !strcmp(action, "EACCES") ? EACCES : 0;
        if (!rule->skip && !rule->brief && !rule->error) abort();
        rule_count++;
    }
    free(copy);
    leave();
    return rule_count;
}

long hw_shim_seen(int number) { return number < rule_count ? rules[number].seen : -1; }

/* ---- files */

static int open_at(int at, const char *path, int flags, mode_t mode) {
    static int (*real)(int, const char *, int, ...);
    if (!real) real = REAL(openat);
    char whole[4096];
    if (!root_length || !absolute(at, path, whole)) return real(at, path, flags, mode);
    enter();
    ssize_t result;
    int fd;
    if (meets((flags & O_CREAT) ? "create" : "open", whole, &result)) fd = -1;
    else {
        struct stat found;
        int kept = errno, there = !stat(whole, &found);
        errno = kept;
        fd = real(at, path, flags, mode);
        uint64_t inode;
        int folder;
        if (fd >= 0 && path_of(fd, whole, &inode, &folder) && !folder) {
            if (!there) put('C', whole, "", inode, 0, "", 0);
            else if ((flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY) put('T', whole, "", inode, 0, "", 0);
            if ((flags & O_TMPFILE) == O_TMPFILE) put('X', whole, "O_TMPFILE", inode, 0, "", 0);
        }
    }
    leave();
    return fd;
}

#define OPEN(name, at, before) \
    int name(before const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return open_at(at, path, flags, mode); }
#define AT int at,
OPEN(open, AT_FDCWD, ) OPEN(open64, AT_FDCWD, ) OPEN(openat, at, AT) OPEN(openat64, at, AT)
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* `offset` < 0: at the descriptor's own place. */
static ssize_t write_at(int fd, const void *data, size_t size, off_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = REAL(pwrite);
    char path[4096];
    uint64_t inode;
    int folder;
    if (!path_of(fd, path, &inode, &folder)) return offset < 0 ? plain_write(fd, data, size) : real(fd, data, size, offset);
    enter();
    ssize_t done;
    int met = meets("write", path, &done);
    if (met == 2) size = size > 1 ? size / 2 : size;
    if (met != 1) {
        done = offset < 0 ? plain_write(fd, data, size) : real(fd, data, size, offset);
        if (done > 0) put('W', path, "", inode, offset < 0 ? lseek(fd, 0, SEEK_CUR) - done : offset, data, done);
    } else if (!done) done = size;
    leave();
    return done;
}

ssize_t write(int fd, const void *data, size_t size) { return write_at(fd, data, size, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return write_at(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return write_at(fd, data, size, offset); }

static ssize_t writev_at(int fd, const struct iovec *parts, int count, off_t offset) {
    ssize_t done = 0;
    for (int i = 0; i < count; i++) {
        ssize_t more = write_at(fd, parts[i].iov_base, parts[i].iov_len, offset < 0 ? -1 : offset + done);
        if (more < 0) return done ? done : -1;
        done += more;
        if ((size_t)more < parts[i].iov_len) break;
    }
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) { return writev_at(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return writev_at(fd, parts, count, offset); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) { return writev_at(fd, parts, count, offset); }

#define READ(name, arguments, values) \
    ssize_t name arguments { \
        static __typeof__(&name) real; \
        if (!real) real = REAL(name); \
        char path[4096]; uint64_t inode; int folder; ssize_t result = 0; \
        if (rule_count && path_of(fd, path, &inode, &folder)) { \
            enter(); int met = meets("read", path, &result); leave(); \
            if (met == 1) return result; \
            if (met == 2 && size > 1) size /= 2; } \
        return real values; }
READ(read, (int fd, void *data, size_t size), (fd, data, size))
READ(pread, (int fd, void *data, size_t size, off_t offset), (fd, data, size, offset))
READ(pread64, (int fd, void *data, size_t size, off64_t offset), (fd, data, size, offset))

static int truncate_fd(int fd, off_t length) {
    int (*real)(int, off_t) = REAL(ftruncate);
    char path[4096];
    uint64_t inode;
    int folder;
    if (!path_of(fd, path, &inode, &folder)) return real(fd, length);
    enter();
    ssize_t result;
    if (!meets("truncate", path, &result)) {
        result = real(fd, length);
        if (!result) put('T', path, "", inode, length, "", 0);
    }
    leave();
    return result;
}

int ftruncate(int fd, off_t length) { return truncate_fd(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncate_fd(fd, length); }

static int sync_fd(int fd, int data_only) {
    static int (*real)(int), (*real_data)(int);
    if (!real) real = REAL(fsync), real_data = REAL(fdatasync);
    char path[4096];
    uint64_t inode;
    int folder;
    if (!path_of(fd, path, &inode, &folder)) return data_only ? real_data(fd) : real(fd);
    enter();
    ssize_t result;
    if (!meets(folder ? "fsync_folder" : "fsync", path, &result)) {
        result = data_only ? real_data(fd) : real(fd);
        if (!result) put('S', path, "", inode, 0, "", 0);
    } else if (result) put('E', path, "", inode, 0, "", 0);
    leave();
    return result;
}

int fsync(int fd) { return sync_fd(fd, 0); }
int fdatasync(int fd) { return sync_fd(fd, 1); }

int close(int fd) {
    static int (*real)(int);
    if (!real) real = REAL(close);
    char path[4096];
    uint64_t inode;
    int folder;
    ssize_t result = 0;
    if (!rule_count || !path_of(fd, path, &inode, &folder)) return real(fd);
    enter();
    int met = meets("close", path, &result), error = errno;
    real(fd);  /* Linux frees the descriptor whatever close says */
    if (met) errno = error;
    leave();
    return result;
}

/* ---- names */

static int make_folder(int at, const char *path, mode_t mode) {
    int (*real)(int, const char *, mode_t) = REAL(mkdirat);
    char whole[4096];
    if (!root_length || !absolute(at, path, whole)) return real(at, path, mode);
    enter();
    ssize_t result;
    if (!meets("mkdir", whole, &result) && !(result = real(at, path, mode))) {
        struct stat found;
        stat(whole, &found);
        put('D', whole, "", found.st_ino, 0, "", 0);
    }
    leave();
    return result;
}

int mkdir(const char *path, mode_t mode) { return make_folder(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return make_folder(at, path, mode); }

static int remove_at(int at, const char *path, int flags) {
    int (*real)(int, const char *, int) = REAL(unlinkat);
    char whole[4096];
    if (!root_length || !absolute(at, path, whole)) return real(at, path, flags);
    enter();
    ssize_t result;
    if (!meets("unlink", whole, &result) && !(result = real(at, path, flags))) put('U', whole, "", 0, 0, "", 0);
    leave();
    return result;
}

int unlink(const char *path) { return remove_at(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return remove_at(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int at, const char *path, int flags) { return remove_at(at, path, flags); }

static int rename_at(int at, const char *path, int other_at, const char *other) {
    int (*real)(int, const char *, int, const char *) = REAL(renameat);
    char whole[4096], target[4096];
    if (!root_length || !(absolute(at, path, whole) | absolute(other_at, other, target))) return real(at, path, other_at, other);
    enter();
    ssize_t result;
    if (!meets("rename", target, &result) && !(result = real(at, path, other_at, other)))
        put(inside(whole) && inside(target) ? 'R' : 'X', whole, target, 0, 0, "", 0);
    leave();
    return result;
}

int rename(const char *path, const char *other) { return rename_at(AT_FDCWD, path, AT_FDCWD, other); }
int renameat(int at, const char *path, int other_at, const char *other) { return rename_at(at, path, other_at, other); }

/* ---- what the model does not know */

static void unknown(int fd, const char *what) {
    char path[4096];
    uint64_t inode;
    int folder;
    if (path_of(fd, path, &inode, &folder)) put('X', path, what, inode, 0, "", 0);
}

#define MAP(name) \
    void *name(void *where, size_t length, int access, int flags, int fd, __typeof__((off_t)0) offset) { \
        static __typeof__(&mmap) real; \
        if (!real) real = REAL(mmap); \
        if (root_length && fd >= 0 && (flags & MAP_SHARED) && (access & PROT_WRITE)) unknown(fd, "mmap"); \
        return real(where, length, access, flags, fd, offset); }
MAP(mmap) MAP(mmap64)
int fallocate(int fd, int mode, off_t offset, off_t length) { unknown(fd, "fallocate"); return REAL(fallocate)(fd, mode, offset, length); }
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return fallocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) { unknown(fd, "fallocate"); return REAL(posix_fallocate)(fd, offset, length); }
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return posix_fallocate(fd, offset, length); }
int link(const char *path, const char *other) {
    char whole[4096];
    if (root_length && absolute(AT_FDCWD, other, whole)) put('X', whole, "link", 0, 0, "", 0);
    return REAL(link)(path, other);
}
