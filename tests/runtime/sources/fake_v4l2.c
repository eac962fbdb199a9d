/* A camera for tests: LD_PRELOADed, it answers for FAKE_V4L2_DEVICE as a V4L2 capture driver would.
 *
 * It is compiled against the kernel's own header, so a caller with a wrong structure, request code or order of calls
 * fails as it would on a camera. What is checked as a driver checks it: buffers must be requested, mapped at the offsets
 * given, queued before they are filled, and are filled in the order in which they were queued; no buffer queued means
 * frames are lost and the sequence goes on; a second user gets EBUSY; after unplugging everything is ENODEV.
 * Bytes of frame number s: byte i is (s * 31 + i * 7 + (i >> 8)) & 255, or the file FAKE_V4L2_JPEG.
 *
 * FAKE_V4L2 holds settings, comma separated: key=number. See `set`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MOST 32
#define BASE 0x56340000L
#define STEP 0x02000000L

static struct {
  long fps, width, height, pad, gap_at, gap_by, error_at, short_at, unplug_at, clock, busy, colorspace, quantization;
  long interlaced, stop_at, multi, no_stream, denied, first, slow, buffers, eio_at;
} set = {.fps = 200, .width = 64, .height = 48, .gap_at = -1, .error_at = -1, .short_at = -1, .unplug_at = -1,
         .clock = 1, .stop_at = -1, .buffers = 4, .eio_at = -1};
static const char *names[] = {"fps", "width", "height", "pad", "gap_at", "gap_by", "error_at", "short_at", "unplug_at",
                              "clock", "busy", "colorspace", "quantization", "interlaced", "stop_at", "multi",
                              "no_stream", "denied", "first", "slow", "buffers", "eio_at"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int fd = -1, blocking, count, streaming, unplugged, eio;
static unsigned sequence, made;
static struct v4l2_pix_format pix;
static struct { void *memory; struct v4l2_buffer at; } buffers[MOST];
static int waiting[MOST], waits, ready[MOST], readys; /* in order */
static pthread_t filler;
static char *jpeg;
static size_t jpeg_size;

static long real(long number, long a, long b, long c) { return syscall(number, a, b, c, 0); }

__attribute__((constructor)) static void configure(void) {
  const char *text = getenv("FAKE_V4L2");
  for (char *copy = strdup(text ? text : ""), *save, *word = strtok_r(copy, ",", &save); word;
       word = strtok_r(NULL, ",", &save)) {
    char *value = strchr(word, '=');
    if (!value) abort();
    *value++ = 0;
    size_t i = 0;
    for (; i < sizeof names / sizeof *names && strcmp(names[i], word); i++);
    if (i == sizeof names / sizeof *names) abort();
    ((long *)&set)[i] = atol(value);
  }
  const char *path = getenv("FAKE_V4L2_JPEG");
  if (path) {
    FILE *file = fopen(path, "rb");
    if (!file) abort();
    jpeg = malloc(1 << 20);
    jpeg_size = fread(jpeg, 1, 1 << 20, file);
    fclose(file);
  }
}

static int is_ours(const char *path) {
  const char *ours = getenv("FAKE_V4L2_DEVICE");
  return ours && !strcmp(path, ours);
}

static int open_ours(int flags) {
  if (set.denied) { errno = EACCES; return -1; }
  if (unplugged || fd >= 0) { errno = unplugged ? ENODEV : EBUSY; return -1; }
  blocking = !(flags & O_NONBLOCK);
  return fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

static int open_any(const char *path, int flags, int mode) {
  return is_ours(path) ? open_ours(flags) : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#define OPEN(name)                                                                          \
  int name(const char *path, int flags, ...) {                                              \
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest);         \
    return open_any(path, flags, mode);                                                     \
  }
OPEN(open)
OPEN(open64)

static long stride(void) {
  long across = pix.width;
  if (pix.pixelformat == V4L2_PIX_FMT_YUYV || pix.pixelformat == V4L2_PIX_FMT_UYVY ||
      pix.pixelformat == V4L2_PIX_FMT_Y16) across *= 2;
  if (pix.pixelformat == V4L2_PIX_FMT_RGB24 || pix.pixelformat == V4L2_PIX_FMT_BGR24) across *= 3;
  return pix.pixelformat == V4L2_PIX_FMT_MJPEG ? 0 : across + set.pad;
}

static void set_format(struct v4l2_pix_format *wanted) {
  static const unsigned known[] = {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_UYVY, V4L2_PIX_FMT_NV12, V4L2_PIX_FMT_NV21,
                                   V4L2_PIX_FMT_GREY, V4L2_PIX_FMT_Y16, V4L2_PIX_FMT_RGB24, V4L2_PIX_FMT_BGR24,
                                   V4L2_PIX_FMT_MJPEG};
  pix.pixelformat = known[0];
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i] == wanted->pixelformat) pix.pixelformat = known[i];
  /* the sizes of the camera: the configured one, and twice that; a driver takes the nearest */
  int twice = wanted->width >= set.width * 3 / 2;
  pix.width = set.width << twice;
  pix.height = set.height << twice;
  pix.field = set.interlaced ? V4L2_FIELD_ALTERNATE : V4L2_FIELD_NONE;
  pix.bytesperline = stride();
  int planar = pix.pixelformat == V4L2_PIX_FMT_NV12 || pix.pixelformat == V4L2_PIX_FMT_NV21;
  pix.sizeimage = jpeg && pix.pixelformat == V4L2_PIX_FMT_MJPEG
                      ? (1 << 20) : (stride() ? stride() : 2 * pix.width) * pix.height * (planar ? 3 : 2) / 2;
  pix.colorspace = set.colorspace ? set.colorspace : V4L2_COLORSPACE_SRGB;
  pix.quantization = set.quantization;
  *wanted = pix;
}

static void fill(int index) {
  struct v4l2_buffer *at = &buffers[index].at;
  unsigned char *bytes = buffers[index].memory;
  size_t size = pix.sizeimage;
  if (pix.pixelformat == V4L2_PIX_FMT_MJPEG && jpeg) memcpy(bytes, jpeg, size = jpeg_size);
  else for (size_t i = 0; i < size; i++) bytes[i] = sequence * 31 + i * 7 + (i >> 8);
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  at->timestamp.tv_sec = now.tv_sec + (set.clock == 2 ? 3600 : 0);
  at->timestamp.tv_usec = now.tv_nsec / 1000;
  at->flags = V4L2_BUF_FLAG_MAPPED | (set.clock ? V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC : 0) |
              (made == set.error_at ? V4L2_BUF_FLAG_ERROR : 0);
  at->bytesused = made == set.short_at ? size / 2 : size;
  at->sequence = sequence + set.first;
  at->field = pix.field;
}

static void signal_ready(void) { unsigned long long one = 1; (void)!write(fd, &one, sizeof one); }

static void *camera(void *unused) {
  for (;;) {
    usleep(1000000 / set.fps);
    pthread_mutex_lock(&lock);
    if (!streaming) { pthread_mutex_unlock(&lock); return unused; }
    if (set.stop_at >= 0 && made >= set.stop_at) { pthread_mutex_unlock(&lock); continue; }
    if (set.unplug_at >= 0 && made >= set.unplug_at) {
      unplugged = 1;
      signal_ready();
      pthread_mutex_unlock(&lock);
      return unused;
    }
    if (made == set.gap_at) { sequence += set.gap_by; set.gap_at = -1; }
    if (made == set.eio_at) { eio = 1; set.eio_at = -1; }
    if (waits) {
      int index = waiting[0];
      memmove(waiting, waiting + 1, --waits * sizeof *waiting);
      fill(index);
      ready[readys++] = index;
      signal_ready();
      made++;
    }
    sequence++; /* also of a frame that found no buffer */
    pthread_mutex_unlock(&lock);
  }
}

static int fail(int code) { errno = code; return -1; }

static int request_buffers(struct v4l2_requestbuffers *wanted) {
  if (wanted->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || wanted->memory != V4L2_MEMORY_MMAP) return fail(EINVAL);
  if (set.busy || streaming) return fail(EBUSY);
  if (!pix.width) { struct v4l2_pix_format usual = {0}; set_format(&usual); }
  count = wanted->count > set.buffers ? set.buffers : wanted->count;
  wanted->count = count;
  for (int i = 0; i < count; i++) {
    if (buffers[i].memory) continue;
    int memory = memfd_create("buffer", MFD_CLOEXEC);
    if (ftruncate(memory, pix.sizeimage)) return fail(ENOMEM);
    buffers[i].memory = mmap(NULL, pix.sizeimage, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    buffers[i].at = (struct v4l2_buffer){.index = i, .type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = V4L2_MEMORY_MMAP,
                                         .length = pix.sizeimage, .m.offset = BASE + i * STEP, .reserved2 = memory};
  }
  return 0;
}

static int valid(const struct v4l2_buffer *asked) {
  return asked->type == V4L2_BUF_TYPE_VIDEO_CAPTURE && asked->memory == V4L2_MEMORY_MMAP && asked->index < count;
}

static int queue(const struct v4l2_buffer *asked) {
  if (!valid(asked)) return fail(EINVAL);
  for (int i = 0; i < waits; i++) if (waiting[i] == asked->index) return fail(EINVAL); /* already queued */
  for (int i = 0; i < readys; i++) if (ready[i] == asked->index) return fail(EINVAL);
  waiting[waits++] = asked->index;
  return 0;
}

static int dequeue(struct v4l2_buffer *out) {
  if (out->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || out->memory != V4L2_MEMORY_MMAP || !streaming) return fail(EINVAL);
  if (eio) { eio = 0; return fail(EIO); }
  if (!readys) return fail(EAGAIN);
  int index = ready[0];
  memmove(ready, ready + 1, --readys * sizeof *ready);
  if (!readys) { unsigned long long sum; (void)!read(fd, &sum, sizeof sum); }
  *out = buffers[index].at;
  out->reserved2 = 0;
  return 0;
}

static int start(void) {
  if (!count) return fail(EINVAL);
  streaming = 1;
  return pthread_create(&filler, NULL, camera, NULL) ? fail(ENOMEM) : 0;
}

static int answer(unsigned long request, void *argument) {
  if (unplugged) return fail(ENODEV);
  switch (request) {
  case VIDIOC_QUERYCAP: {
    struct v4l2_capability *out = argument;
    memset(out, 0, sizeof *out);
    strcpy((char *)out->driver, "fake");
    strcpy((char *)out->card, "Fake camera");
    out->device_caps = (set.multi ? V4L2_CAP_VIDEO_CAPTURE_MPLANE : V4L2_CAP_VIDEO_CAPTURE) |
                       (set.no_stream ? V4L2_CAP_READWRITE : V4L2_CAP_STREAMING);
    out->capabilities = out->device_caps | V4L2_CAP_DEVICE_CAPS;
    return 0;
  }
  case VIDIOC_ENUM_FMT: {
    static const unsigned offered[] = {V4L2_PIX_FMT_MJPEG, V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_UYVY, V4L2_PIX_FMT_NV12,
                                       V4L2_PIX_FMT_NV21, V4L2_PIX_FMT_GREY, V4L2_PIX_FMT_Y16, V4L2_PIX_FMT_BGR24};
    struct v4l2_fmtdesc *out = argument;
    if (out->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || out->index >= sizeof offered / sizeof *offered) return fail(EINVAL);
    out->pixelformat = offered[out->index];
    return 0;
  }
  case VIDIOC_ENUM_FRAMESIZES: {
    struct v4l2_frmsizeenum *out = argument;
    if (out->index > 1) return fail(EINVAL);
    out->type = V4L2_FRMSIZE_TYPE_DISCRETE;
    out->discrete.width = set.width << out->index;
    out->discrete.height = set.height << out->index;
    return 0;
  }
  case VIDIOC_G_FMT: case VIDIOC_TRY_FMT: case VIDIOC_S_FMT: {
    struct v4l2_format *out = argument;
    if (out->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return fail(EINVAL);
    if (request == VIDIOC_S_FMT && count) return fail(EBUSY);
    if (request == VIDIOC_G_FMT) memset(&out->fmt.pix, 0, sizeof out->fmt.pix);
    set_format(&out->fmt.pix);
    return 0;
  }
  case VIDIOC_G_PARM: case VIDIOC_S_PARM: {
    struct v4l2_streamparm *out = argument;
    struct v4l2_fract *frame = &out->parm.capture.timeperframe;
    out->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
    if (request == VIDIOC_S_PARM && frame->numerator && frame->denominator <= 240 * frame->numerator)
      set.fps = frame->denominator / frame->numerator;
    frame->numerator = 1;
    frame->denominator = set.fps;
    return 0;
  }
  case VIDIOC_G_INPUT: case VIDIOC_S_INPUT: *(int *)argument = 0; return 0;
  case VIDIOC_ENUMINPUT: {
    struct v4l2_input *out = argument;
    if (out->index) return fail(EINVAL);
    memset(out, 0, sizeof *out);
    strcpy((char *)out->name, "Camera 1");
    out->type = V4L2_INPUT_TYPE_CAMERA;
    return 0;
  }
  case VIDIOC_REQBUFS: return request_buffers(argument);
  case VIDIOC_QUERYBUF: {
    struct v4l2_buffer *out = argument;
    if (!valid(out)) return fail(EINVAL);
    *out = buffers[out->index].at;
    out->reserved2 = 0;
    return 0;
  }
  case VIDIOC_QBUF: return queue(argument);
  case VIDIOC_DQBUF: return dequeue(argument);
  case VIDIOC_STREAMON: return start();
  case VIDIOC_STREAMOFF: streaming = waits = readys = 0; return 0;
  default: return fail(ENOTTY);
  }
}

int ioctl(int number, unsigned long request, ...) {
  va_list rest; va_start(rest, request); void *argument = va_arg(rest, void *); va_end(rest);
  if (number != fd || fd < 0) return (int)real(SYS_ioctl, number, request, (long)argument);
  pthread_mutex_lock(&lock);
  int code;
  while ((code = answer((unsigned)request, argument)) && errno == EAGAIN && blocking) {
    pthread_mutex_unlock(&lock);
    usleep(500);
    pthread_mutex_lock(&lock);
  }
  pthread_mutex_unlock(&lock);
  return code;
}

int poll(struct pollfd *fds, nfds_t n, int timeout) {
  int code = (int)real(SYS_poll, (long)fds, n, timeout);
  for (nfds_t i = 0; code > 0 && i < n; i++)
    if (fd >= 0 && fds[i].fd == fd && fds[i].revents && unplugged) fds[i].revents = POLLERR | POLLHUP;
  return code;
}

void *mmap64(void *where, size_t size, int protection, int flags, int number, off_t offset) {
  long index = (offset - BASE) / STEP;
  struct stat status;
  /* Python maps a duplicate of the descriptor: ours is told by the offset, on something that is no file */
  if (offset >= BASE && index < count && (offset - BASE) % STEP == 0 && !fstat(number, &status) && !S_ISREG(status.st_mode)) {
    if (!(flags & MAP_SHARED) || size != pix.sizeimage) { errno = EINVAL; return MAP_FAILED; }
    number = (int)buffers[index].at.reserved2;
    offset = 0;
  }
  return (void *)syscall(SYS_mmap, where, size, protection, flags, number, offset);
}
void *mmap(void *where, size_t size, int protection, int flags, int number, off_t offset) {
  return mmap64(where, size, protection, flags, number, offset);
}

int close(int number) {
  if (number == fd && fd >= 0) {
    pthread_mutex_lock(&lock);
    int running = streaming;
    streaming = 0;
    fd = -1;
    pthread_mutex_unlock(&lock);
    if (running) pthread_join(filler, NULL);
    for (int i = 0; i < count; i++) { /* what is still mapped stays */
      munmap(buffers[i].memory, pix.sizeimage);
      syscall(SYS_close, buffers[i].at.reserved2);
      buffers[i].memory = NULL;
    }
    count = waits = readys = made = sequence = 0;
  }
  return (int)real(SYS_close, number, 0, 0);
}
