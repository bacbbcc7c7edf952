/* What a process under test does to its files, written down and made to fail; and the wall clock that it is shown.
 *
 * Loaded with LD_PRELOAD. Only files below SHIM_DIR, and that folder itself, are watched. tests/faults/shim.rs knows the
 * layouts below and what they are for.
 *
 *   SHIM_DIR      the folder
 *   SHIM_LOG      where each call is written down, in the order in which they took effect; not if it is not set
 *   SHIM_CONTROL  a file of a struct control, which the test writes and reads while the process runs
 *
 * One lock, which processes with the same log share, is held over a call and its record: so the log has one order, which is
 * that of the calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum call { OPEN = 1, WRITE = 2, TRUNCATE = 4, SYNC = 8, UNLINK = 16, CLOSE = 32, RENAME = 64 };
enum file { MAIN = 1, WAL = 2, JOURNAL = 4, FOLDER = 8, SHARED = 16, OTHER = 32 };

#define RULES 4
#define FILES 65536

/* Makes calls fail: `count` of those that match, from the one with the number `first`, which begins at 1. */
struct rule {
    uint64_t calls, files; /* which match: sets of enum call and enum file */
    uint64_t first, count;
    uint64_t error;   /* the errno; 0 for a sync that is not made and told to be */
    uint64_t growing; /* whether only what makes a file, or makes one longer, matches */
    uint64_t seen, failed; /* how many did, and how many of them failed */
};

struct control {
    int64_t offset;  /* nanoseconds that the wall clock is ahead */
    uint64_t retried; /* syncs that were made again after they had failed, with nothing written in between */
    struct rule rules[RULES];
};

struct record {
    uint32_t magic;
    uint8_t call, failed, created, file;
    uint32_t pid, thread;
    int32_t fd;
    uint32_t path, data; /* the lengths of what follows */
    uint64_t offset;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct control *control;
static char folder[PATH_MAX];
static size_t folder_length;
static int log_file = -1;
/* Of each descriptor: which enum file it is, 0 for one that is not watched; and whether its last sync failed. */
static uint8_t watched[FILES], unsynced[FILES];

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

/* The function that this file stands before, looked up once. */
#define REAL(name)                                       \
    ({                                                   \
        static __typeof__(&name) found;                  \
        if (!found) found = (__typeof__(&name))real(#name); \
        found;                                           \
    })

static void begin(void) {
    const char *dir = getenv("SHIM_DIR"), *log = getenv("SHIM_LOG"), *path = getenv("SHIM_CONTROL");
    if (dir && realpath(dir, folder)) folder_length = strlen(folder);
    int (*open_)(const char *, int, ...) = real("open64");
    int (*close_)(int) = real("close");
    if (log && (log_file = open_(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)) < 0) abort();
    if (path) {
        int fd = open_(path, O_RDWR | O_CLOEXEC);
        void *there = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd < 0 || there == MAP_FAILED) abort();
        close_(fd);
        control = there;
    }
}

static void enter(void) {
    pthread_once(&once, begin);
    pthread_mutex_lock(&lock);
    if (log_file >= 0 && flock(log_file, LOCK_EX)) abort();
}

static void leave(void) {
    int error = errno;
    if (log_file >= 0) flock(log_file, LOCK_UN);
    pthread_mutex_unlock(&lock);
    errno = error;
}

static int ends(const char *path, const char *end) {
    size_t length = strlen(path), of_end = strlen(end);
    return length >= of_end && !strcmp(path + length - of_end, end);
}

/* Which file a path is; 0 for one that is not watched. `whole` becomes the path from the root. */
static uint8_t classify(const char *path, char *whole) {
    char dir[PATH_MAX], there[PATH_MAX];
    if (!folder_length || !path || strlen(path) >= PATH_MAX) return 0;
    if (realpath(path, whole) && !strcmp(whole, folder)) return FOLDER;
    /* The file may not be there: its folder is. */
    strcpy(dir, path);
    char *slash = strrchr(dir, '/');
    const char *name = slash ? slash + 1 : path;
    if (slash) *slash = 0;
    else strcpy(dir, ".");
    if (!realpath(*dir ? dir : "/", there)) return 0;
    if (strncmp(there, folder, folder_length) || (there[folder_length] && there[folder_length] != '/')) return 0;
    if (strlen(there) + 1 + strlen(name) >= PATH_MAX) return 0;
    stpcpy(stpcpy(stpcpy(whole, there), "/"), name);
    if (ends(name, "-wal")) return WAL;
    if (ends(name, "-journal")) return JOURNAL;
    if (ends(name, "-shm")) return SHARED;
    if (ends(name, ".db")) return MAIN;
    /* PostgreSQL's. */
    if (strstr(whole, "/pg_wal/")) return WAL;
    if (strstr(whole, "/base/")) return MAIN;
    return OTHER;
}

/* What a sync fails with that is told to be made. */
#define UNTOLD -1

/* Whether this call is to fail, and then how. */
static int fails(enum call call, uint8_t file, int growing) {
    if (!control) return 0;
    int error = 0;
    for (int i = 0; i < RULES; i++) {
        struct rule *rule = &control->rules[i];
        if (!(rule->calls & call) || !(rule->files & file) || (rule->growing && !growing)) continue;
        uint64_t number = __atomic_add_fetch(&rule->seen, 1, __ATOMIC_SEQ_CST);
        if (error || number < rule->first || number - rule->first >= rule->count) continue;
        __atomic_add_fetch(&rule->failed, 1, __ATOMIC_SEQ_CST);
        error = rule->error ? (int)rule->error : call == SYNC ? UNTOLD : 0;
    }
    return error;
}

static void note(enum call call, uint8_t file, int failed, int created, int fd, const char *path, uint64_t offset,
                 const void *data, size_t length) {
    if (log_file < 0 || file == SHARED) return;
    struct record record = {
        .magic = 0x5348494d, .call = call, .failed = failed, .created = created, .file = file,
        .pid = (uint32_t)getpid(), .thread = (uint32_t)syscall(SYS_gettid), .fd = fd,
        .path = path ? strlen(path) : 0, .data = length, .offset = offset,
    };
    struct iovec parts[] = {{&record, sizeof record}, {(void *)path, record.path}, {(void *)data, length}};
    ssize_t whole = sizeof record + record.path + length;
    /* A log with holes proves nothing. */
    if (REAL(writev)(log_file, parts, 3) != whole) abort();
}

static int is_watched(int fd) { return fd >= 0 && fd < FILES && watched[fd]; }

static int open_any(const char *name, int at, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    enter();
    uint8_t file = at == AT_FDCWD || (path && *path == '/') ? classify(path, whole) : 0;
    struct stat there;
    int created = file && (flags & O_CREAT) && stat(whole, &there);
    int error = file ? fails(OPEN, file, created) : 0;
    int fd = -1;
    if (error) {
        errno = error;
    } else {
        int (*open_)(int, const char *, int, ...) = real(name);
        fd = open_(at, path, flags, mode);
        if (fd >= 0 && fd < FILES) {
            watched[fd] = file;
            unsynced[fd] = 0;
        } else if (fd >= FILES && file) {
            abort();
        }
        if (file && fd >= 0) {
            int saved = errno;
            note(OPEN, file, 0, created, fd, whole, 0, NULL, 0);
            if (flags & O_TRUNC) note(TRUNCATE, file, 0, 0, fd, NULL, 0, NULL, 0);
            errno = saved;
        }
    }
    leave();
    return fd;
}

#define MODE(flags)                                    \
    mode_t mode = 0;                                   \
    if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) { \
        va_list rest;                                  \
        va_start(rest, flags);                         \
        mode = va_arg(rest, mode_t);                   \
        va_end(rest);                                  \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return open_any("openat", AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return open_any("openat64", AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    return open_any("openat", at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    return open_any("openat64", at, path, flags, mode);
}

int creat(const char *path, mode_t mode) {
    return open_any("openat", AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

int close(int fd) {
    if (!is_watched(fd)) return REAL(close)(fd);
    enter();
    note(CLOSE, watched[fd], 0, 0, fd, NULL, 0, NULL, 0);
    watched[fd] = unsynced[fd] = 0;
    int result = REAL(close)(fd);
    leave();
    return result;
}

static ssize_t write_at(int fd, const void *data, size_t length, off_t offset) {
    enter();
    ssize_t written;
    struct stat there;
    if (fstat(fd, &there)) abort();
    int error = fails(WRITE, watched[fd], offset + (off_t)length > there.st_size);
    /* What fails has done a part, as a disk may. */
    written = REAL(pwrite64)(fd, data, error ? length / 2 : length, offset);
    int saved = errno;
    if (written >= 0) {
        unsynced[fd] = 0;
        note(WRITE, watched[fd], error != 0, 0, fd, NULL, (uint64_t)offset, data, (size_t)written);
    }
    errno = saved;
    if (error) {
        errno = error;
        written = -1;
    }
    leave();
    return written;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return is_watched(fd) ? write_at(fd, data, length, offset) : REAL(pwrite64)(fd, data, length, offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return is_watched(fd) ? write_at(fd, data, length, offset) : REAL(pwrite)(fd, data, length, offset);
}

ssize_t write(int fd, const void *data, size_t length) {
    if (!is_watched(fd)) return REAL(write)(fd, data, length);
    off_t offset = lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t written = write_at(fd, data, length, offset);
    if (written > 0) lseek(fd, offset + written, SEEK_SET);
    return written;
}

static int truncate_to(int fd, off_t length) {
    enter();
    int error = fails(TRUNCATE, watched[fd], 0), result = -1;
    if (error) {
        errno = error;
    } else {
        result = REAL(ftruncate64)(fd, length);
        int saved = errno;
        if (!result) note(TRUNCATE, watched[fd], 0, 0, fd, NULL, (uint64_t)length, NULL, 0);
        /* Of an empty file nothing is left that a sync could have failed to write. */
        if (!result && !length) unsynced[fd] = 0;
        errno = saved;
    }
    leave();
    return result;
}

int ftruncate64(int fd, off64_t length) {
    return is_watched(fd) ? truncate_to(fd, length) : REAL(ftruncate64)(fd, length);
}

int ftruncate(int fd, off_t length) { return is_watched(fd) ? truncate_to(fd, length) : REAL(ftruncate)(fd, length); }

static int sync_file(const char *name, int fd) {
    enter();
    if (unsynced[fd] && control) __atomic_add_fetch(&control->retried, 1, __ATOMIC_SEQ_CST);
    int error = fails(SYNC, watched[fd], 0), result = -1;
    if (error == UNTOLD) {
        result = 0;
    } else if (error) {
        unsynced[fd] = 1;
        errno = error;
    } else {
        int (*sync_)(int) = real(name);
        result = sync_(fd);
    }
    int saved = errno;
    note(SYNC, watched[fd], error || result, 0, fd, NULL, 0, NULL, 0);
    errno = saved;
    leave();
    return result;
}

int fsync(int fd) { return is_watched(fd) ? sync_file("fsync", fd) : REAL(fsync)(fd); }

int fdatasync(int fd) { return is_watched(fd) ? sync_file("fdatasync", fd) : REAL(fdatasync)(fd); }

int unlink(const char *path) {
    char whole[PATH_MAX];
    enter();
    uint8_t file = classify(path, whole);
    int error = file ? fails(UNLINK, file, 0) : 0, result = -1;
    if (error) {
        errno = error;
    } else {
        result = REAL(unlink)(path);
        int saved = errno;
        if (file && !result) note(UNLINK, file, 0, 0, -1, whole, 0, NULL, 0);
        errno = saved;
    }
    leave();
    return result;
}

/* SQLite renames nothing: the replay refuses a log that has this. */
int rename(const char *from, const char *to) {
    char whole[PATH_MAX];
    enter();
    uint8_t file = classify(from, whole);
    int result = REAL(rename)(from, to);
    int saved = errno;
    if (file && !result) note(RENAME, file, 0, 0, -1, whole, 0, NULL, 0);
    errno = saved;
    leave();
    return result;
}

/* Nanoseconds to add to the wall clock. */
static int64_t ahead(void) {
    pthread_once(&once, begin);
    return control ? __atomic_load_n(&control->offset, __ATOMIC_RELAXED) : 0;
}

#define SECOND 1000000000LL

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = REAL(clock_gettime)(clock, time);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t now = time->tv_sec * SECOND + time->tv_nsec + ahead();
        time->tv_sec = now / SECOND;
        time->tv_nsec = now % SECOND;
    }
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    int result = REAL(gettimeofday)(time, zone);
    if (!result) {
        int64_t now = time->tv_sec * SECOND + time->tv_usec * 1000 + ahead();
        time->tv_sec = now / SECOND;
        time->tv_usec = now % SECOND / 1000;
    }
    return result;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
