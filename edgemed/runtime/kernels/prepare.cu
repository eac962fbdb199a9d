/* Raw frames -> model input, in one pass: pixel format, values, resampling, geometry, normalisation, layout, type.
 *
 * One source, three compilers: NVRTC makes the PTX that is shipped (scripts/make_kernels.py), the system's C compiler
 * makes the host twin that the tests hold against the recipe, and the same with a team of threads shows its barriers
 * to a race checker. So: plain C, no headers on the device, and no contraction of a * b + c anywhere (-fmad=false and
 * -ffp-contract=off): the device gives bit for bit what the host gives, but for expf and powf.
 *
 * A launch reads its orders from one block of 32-bit words (edgemed/runtime/kernels/block.py writes it), so it takes
 * three pointers, and a captured launch stays right for as long as the block does.
 *
 * Resampling is separable. Rows are filtered into shared memory, columns out of it: a tile reads a source row once per
 * output row that it lies under, and nothing goes to global memory in between. Taking both filters at once for each
 * output pixel would fetch taps x taps pixels, 4 times as many for a triangle filter; two launches would write and
 * read back a float image as wide as the source.
 */

#ifdef __CUDACC__
#define SHARED_TILE extern __shared__ float tile[]
#define FN static __device__ __forceinline__
#define EACH(i, count) for (int i = (int)threadIdx.x; i < (count); i += (int)blockDim.x)
#define MEET() __syncthreads()
#define REST __restrict__
#else
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define FN static inline
#define REST restrict
#ifdef EDGEMED_TEAM /* that many threads share each block, as on the device */
#include <pthread.h>
static _Thread_local int rank;
static pthread_barrier_t gate;
#define EACH(i, count) for (int i = rank; i < (count); i += EDGEMED_TEAM)
#define MEET() pthread_barrier_wait(&gate)
#else
#define EACH(i, count) for (int i = 0; i < (count); ++i)
#define MEET() ((void)0)
#endif
#endif

/* words of the block's head; offsets are in words from its beginning */
enum {
    FORMAT,         /* 0 channels side by side, 1 YUYV, 2 UYVY, 3 NV12, 4 NV21 */
    RAW_TYPE,       /* 0 uint8, 1 uint16, 2 int16 */
    RAW_CHANNELS,   /* 1, or 3: red, green, blue after `fetch` */
    RAW_FRAME,      /* distances in samples */
    RAW_ROW,
    RAW_COLUMN,
    RAW_RED,        /* place of each channel in a pixel, samples */
    RAW_GREEN,
    RAW_BLUE,
    CHROMA,         /* where the second plane of NV12 and NV21 begins, samples */
    YUV,            /* offset of five tables of 256: what luma adds to all, V to red, U and V to green, U to blue */
    TURNED,         /* rows of the output run along columns of the source */
    TABLE,          /* offset of floats, one for each value that a sample can have; 0: no table */
    TABLE_FIRST,    /* the value of its first entry */
    TABLE_CHANNEL,  /* from one channel's table to the next; 0: one for all */
    BEFORE,         /* offset and number of the operations before resampling */
    BEFORE_COUNT,
    AFTER,
    AFTER_COUNT,
    CHANNELS,       /* of what is resampled */
    FILL_BEFORE,    /* offset of three floats for each way of padding, from number 1 on */
    FILL_AFTER,
    OUT_TYPE,       /* 0 float32, 1 float16, 2 uint8 */
    OUT_CHANNELS,
    OUT_ROWS,
    OUT_COLUMNS,
    OUT_FRAME,      /* distances in samples */
    OUT_CHANNEL,
    OUT_ROW,
    OUT_COLUMN,
    TILE_ROWS,
    TILE_COLUMNS,
    ROW_TAPS,
    ROW_INDEX,      /* (rows, taps): source rows; below 0 the number of a padding */
    ROW_WEIGHT,     /* (rows, taps) */
    ROW_PAD,        /* (rows,): number of the padding, 0 for none */
    COLUMN_TAPS,
    COLUMN_INDEX,   /* (columns, taps): source columns, or places in the tile's span */
    COLUMN_WEIGHT,
    COLUMN_PAD,
    SPAN,           /* source columns that a tile keeps, at most */
    SPAN_COUNT,     /* (tiles,): how many it does keep */
    SPAN_INDEX,     /* (tiles, SPAN): source columns; below 0 the number of a padding */
    DIVISOR,        /* float: the sum of taps is divided by it */
    WORDS,          /* of the whole block */
    EXACT,          /* sums carry what rounding takes off them; 0: as they come */
    HEAD
};

enum { SCALE, RAMP, CLIP, INVERT, POWER, SIGMOID, GRAY, COLOR };

enum { OP_CODE, OP_A, OP_B = 4, OP_WORDS = 8 };

FN float as_float(int word)
{
#ifdef __CUDACC__
    return __int_as_float(word);
#else
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
#endif
}

/* round to nearest even, as NumPy's astype does */
FN unsigned short half_of(float value)
{
#ifdef __CUDACC__
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
#else
    unsigned bits, sign, kept, lost, tie;
    memcpy(&bits, &value, sizeof bits);
    sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return (unsigned short)(sign | 0x7e00u);
    if (bits >= 0x477ff000u)
        return (unsigned short)(sign | 0x7c00u);
    if (bits >= 0x38800000u) { /* normal: 13 bits go */
        kept = (bits - 0x38000000u) >> 13;
        lost = bits & 0x1fffu;
        tie = 0x1000u;
    } else if (bits >= 0x33000000u) { /* subnormal */
        unsigned shift = 126u - (bits >> 23);
        unsigned mantissa = (bits & 0x7fffffu) | 0x800000u;
        kept = mantissa >> shift;
        lost = mantissa & ((1u << shift) - 1u);
        tie = 1u << (shift - 1u);
    } else
        return (unsigned short)sign;
    kept += lost > tie || (lost == tie && (kept & 1u));
    return (unsigned short)(sign | kept);
#endif
}

FN int bounded(int value, int high)
{
    return value < 0 ? 0 : value > high ? high : value;
}

FN float between(float value, float low, float high)
{
    value = value < low ? low : value;
    return value > high ? high : value;
}

FN float one_value(int code, float value, float a, float b)
{
    switch (code) {
    case SCALE:
        return (value - a) / b;
    case RAMP:
        return between((value - a) / b, 0.0f, 1.0f);
    case CLIP:
        return between(value, a, b);
    case INVERT:
        return a - value;
    case POWER:
        return powf(value, a);
    default: /* SIGMOID */
        return 1.0f / (expf((value - a) * b) + 1.0f);
    }
}

/* a list of operations on one pixel */
FN void apply(const int *REST plan, int at, int count, int channels, float *v)
{
    for (int op = 0; op < count; ++op, at += OP_WORDS) {
        int code = plan[at + OP_CODE];
        if (code == GRAY) {
            if (v[0] != v[1] || v[0] != v[2]) /* exact where the three are equal */
                v[0] = v[0] * 0.299f + v[1] * 0.587f + v[2] * 0.114f;
            channels = 1;
        } else if (code == COLOR) {
            v[1] = v[2] = v[0];
            channels = 3;
        } else {
            v[0] = one_value(code, v[0], as_float(plan[at + OP_A]), as_float(plan[at + OP_B]));
            if (channels == 3) {
                v[1] = one_value(code, v[1], as_float(plan[at + OP_A + 1]), as_float(plan[at + OP_B + 1]));
                v[2] = one_value(code, v[2], as_float(plan[at + OP_A + 2]), as_float(plan[at + OP_B + 2]));
            }
        }
    }
}

/* what `fetch` asks of the head for every pixel, read once */
typedef struct {
    const unsigned char *raw; /* of this frame */
    const int *plan;
    int format, type, channels, row, column, red, green, blue, turned, table, table_channel, before, before_count;
} Source;

FN Source source_of(const int *REST plan, const unsigned char *REST raw, int frame)
{
    Source source;
    unsigned first = (unsigned)frame * (unsigned)plan[RAW_FRAME];
    source.plan = plan;
    source.format = plan[FORMAT];
    source.type = plan[RAW_TYPE];
    source.raw = raw + (source.type == 0 ? first : (size_t)first * 2);
    source.channels = plan[RAW_CHANNELS];
    source.row = plan[RAW_ROW];
    source.column = plan[RAW_COLUMN];
    source.red = plan[RAW_RED];
    source.green = plan[RAW_GREEN];
    source.blue = plan[RAW_BLUE];
    source.turned = plan[TURNED];
    source.table = plan[TABLE] - plan[TABLE_FIRST];
    source.table_channel = plan[TABLE_CHANNEL];
    source.before = plan[BEFORE];
    source.before_count = plan[BEFORE_COUNT];
    return source;
}

FN int sample_of(const Source *source, unsigned at)
{
    if (source->type == 0)
        return source->raw[at];
    if (source->type == 1)
        return ((const unsigned short *)source->raw)[at];
    return ((const short *)source->raw)[at];
}

/* red, green and blue of one pixel of a camera; chroma is shared by neighbours, not interpolated */
FN void camera(const Source *source, int row, int column, int *rgb)
{
    int luma, u, v;
    const int *tables = source->plan + source->plan[YUV];
    const unsigned char *raw = source->raw;
    unsigned base = (unsigned)row * (unsigned)source->row;
    if (source->format >= 3) {
        unsigned pair = (unsigned)source->plan[CHROMA] + (unsigned)((row >> 1) * source->row + (column & ~1));
        luma = raw[base + (unsigned)column];
        u = raw[pair + (unsigned)(source->format == 4)];
        v = raw[pair + (unsigned)(source->format == 3)];
    } else { /* Y U Y V, or U Y V Y */
        unsigned first = source->format == 2, pair = base + (unsigned)(column & ~1) * 2;
        luma = raw[pair + (unsigned)(column & 1) * 2 + first];
        u = raw[pair + 1 - first];
        v = raw[pair + 3 - first];
    }
    luma = tables[luma];
    rgb[0] = bounded((luma + tables[256 + v]) >> 16, 255);
    rgb[1] = bounded((luma + (tables[512 + u] + tables[768 + v])) >> 16, 255);
    rgb[2] = bounded((luma + tables[1024 + u]) >> 16, 255);
}

/* one source pixel, after all that comes before resampling */
FN void fetch(const Source *source, int row, int column, float *v)
{
    int stored[3] = {0, 0, 0};
    const int *plan = source->plan;
    int padding = row < column ? row : column;
    if (padding < 0) { /* the later padding lies outside, and has the greater number */
        int at = plan[FILL_BEFORE] - 3 * (padding + 1);
        v[0] = as_float(plan[at]);
        v[1] = as_float(plan[at + 1]);
        v[2] = as_float(plan[at + 2]);
        return;
    }
    if (source->turned) {
        int other = row;
        row = column;
        column = other;
    }
    if (source->format != 0)
        camera(source, row, column, stored);
    else {
        unsigned at = (unsigned)row * (unsigned)source->row + (unsigned)(column * source->column);
        stored[0] = sample_of(source, at + (unsigned)source->red);
        if (source->channels == 3) {
            stored[1] = sample_of(source, at + (unsigned)source->green);
            stored[2] = sample_of(source, at + (unsigned)source->blue);
        }
    }
    if (source->table != 0) {
        int at = source->table, next = source->table_channel;
        v[0] = as_float(plan[at + stored[0]]);
        if (source->channels == 3) {
            v[1] = as_float(plan[at + next + stored[1]]);
            v[2] = as_float(plan[at + 2 * next + stored[2]]);
        }
    } else {
        v[0] = (float)stored[0];
        v[1] = (float)stored[1];
        v[2] = (float)stored[2];
    }
    if (source->before_count != 0)
        apply(plan, source->before, source->before_count, source->channels, v);
}

FN void store(const int *REST plan, void *REST out, int frame, int row, int column, const float *v)
{
    unsigned at = (unsigned)frame * (unsigned)plan[OUT_FRAME] + (unsigned)row * (unsigned)plan[OUT_ROW] +
                  (unsigned)column * (unsigned)plan[OUT_COLUMN];
    for (int channel = 0; channel < plan[OUT_CHANNELS]; ++channel, at += (unsigned)plan[OUT_CHANNEL]) {
        float value = channel == 0 ? v[0] : channel == 1 ? v[1] : v[2];
        if (plan[OUT_TYPE] == 0)
            ((float *)out)[at] = value;
        else if (plan[OUT_TYPE] == 1)
            ((unsigned short *)out)[at] = half_of(value);
        else
            ((unsigned char *)out)[at] = (unsigned char)between(rintf(value), 0.0f, 255.0f);
    }
}

/* what was added around the image, if this pixel is of it */
FN int is_padding(const int *REST plan, int row, int column, float *v)
{
    int rows = plan[plan[ROW_PAD] + row], columns = plan[plan[COLUMN_PAD] + column];
    int padding = rows > columns ? rows : columns;
    if (padding == 0)
        return 0;
    padding = plan[FILL_AFTER] + 3 * (padding - 1);
    v[0] = as_float(plan[padding]);
    v[1] = as_float(plan[padding + 1]);
    v[2] = as_float(plan[padding + 2]);
    return 1;
}

/* every output pixel is one source pixel, or padding; places come from the two index tables */
FN void direct(const unsigned char *REST raw, void *REST out, const int *REST plan, int tile_x, int tile_y, int frame)
{
    int columns = plan[TILE_COLUMNS];
    const Source source = source_of(plan, raw, frame);
    EACH(i, plan[TILE_ROWS] * columns) {
        int row = tile_y * plan[TILE_ROWS] + i / columns, column = tile_x * columns + i % columns;
        float v[3] = {0.0f, 0.0f, 0.0f};
        if (row >= plan[OUT_ROWS] || column >= plan[OUT_COLUMNS])
            continue;
        if (!is_padding(plan, row, column, v))
            fetch(&source, plan[plan[ROW_INDEX] + row], plan[plan[COLUMN_INDEX] + column], v);
        store(plan, out, frame, row, column, v);
    }
}

/* One more term of a sum (Kahan, 1965). The recipe's antialias, bicubic and lanczos are sums in double; with `lost`
 * these come as near as a float can, however many taps there are. Its bilinear and area are plain float sums in this
 * very order, and so are ours: bit for bit.
 */
FN void add(float *REST sum, float *REST lost, float term, int exact)
{
    float before = *sum;
    term -= *lost;
    *sum = before + term;
    *lost = exact ? (*sum - before) - term : 0.0f;
}

/* rows of the source into the tile: (rows of the tile, columns of its span, channels) */
FN void filter_rows(const unsigned char *REST raw, const int *REST plan, float *REST tile, int tile_x, int tile_y, int frame)
{
    int span = plan[plan[SPAN_COUNT] + tile_x], taps = plan[ROW_TAPS], channels = plan[CHANNELS];
    int exact = plan[EXACT];
    const int *index = plan + plan[ROW_INDEX], *weights = plan + plan[ROW_WEIGHT];
    const Source source = source_of(plan, raw, frame);
    EACH(i, plan[TILE_ROWS] * span) {
        int row = tile_y * plan[TILE_ROWS] + i / span;
        int column = plan[plan[SPAN_INDEX] + tile_x * plan[SPAN] + i % span];
        float sum[3] = {0.0f, 0.0f, 0.0f}, lost[3] = {0.0f, 0.0f, 0.0f};
        if (row >= plan[OUT_ROWS] || plan[plan[ROW_PAD] + row] != 0)
            continue;
        for (int tap = row * taps; tap < (row + 1) * taps; ++tap) {
            float weight = as_float(weights[tap]), v[3] = {0.0f, 0.0f, 0.0f};
            if (weight == 0.0f)
                continue;
            fetch(&source, index[tap], column, v);
            add(&sum[0], &lost[0], v[0] * weight, exact);
            if (channels == 3) {
                add(&sum[1], &lost[1], v[1] * weight, exact);
                add(&sum[2], &lost[2], v[2] * weight, exact);
            }
        }
        tile[i * channels] = sum[0];
        if (channels == 3) {
            tile[i * 3 + 1] = sum[1];
            tile[i * 3 + 2] = sum[2];
        }
    }
}

/* columns of the tile into the output */
FN void filter_columns(const int *REST plan, void *REST out, const float *REST tile, int tile_x, int tile_y, int frame)
{
    int columns = plan[TILE_COLUMNS], span = plan[plan[SPAN_COUNT] + tile_x];
    int taps = plan[COLUMN_TAPS], channels = plan[CHANNELS], exact = plan[EXACT];
    float divisor = as_float(plan[DIVISOR]);
    const int *index = plan + plan[COLUMN_INDEX], *weights = plan + plan[COLUMN_WEIGHT];
    EACH(i, plan[TILE_ROWS] * columns) {
        int row = tile_y * plan[TILE_ROWS] + i / columns, column = tile_x * columns + i % columns;
        float v[3] = {0.0f, 0.0f, 0.0f}, lost[3] = {0.0f, 0.0f, 0.0f};
        if (row >= plan[OUT_ROWS] || column >= plan[OUT_COLUMNS])
            continue;
        if (!is_padding(plan, row, column, v)) {
            for (int tap = column * taps; tap < (column + 1) * taps; ++tap) {
                float weight = as_float(weights[tap]);
                const float *from = tile + (i / columns * span + index[tap]) * channels;
                if (weight == 0.0f)
                    continue;
                add(&v[0], &lost[0], from[0] * weight, exact);
                if (channels == 3) {
                    add(&v[1], &lost[1], from[1] * weight, exact);
                    add(&v[2], &lost[2], from[2] * weight, exact);
                }
            }
            if (divisor != 1.0f) {
                v[0] /= divisor;
                v[1] /= divisor;
                v[2] /= divisor;
            }
            apply(plan, plan[AFTER], plan[AFTER_COUNT], channels, v);
        }
        store(plan, out, frame, row, column, v);
    }
}

#ifdef __CUDACC__

extern "C" __global__ void __launch_bounds__(256, 4)
edgemed_direct(const unsigned char *REST raw, void *REST out, const int *REST plan)
{
    direct(raw, out, plan, (int)blockIdx.x, (int)blockIdx.y, (int)blockIdx.z);
}

extern "C" __global__ void __launch_bounds__(256, 4)
edgemed_resample(const unsigned char *REST raw, void *REST out, const int *REST plan)
{
    SHARED_TILE;
    filter_rows(raw, plan, tile, (int)blockIdx.x, (int)blockIdx.y, (int)blockIdx.z);
    MEET();
    filter_columns(plan, out, tile, (int)blockIdx.x, (int)blockIdx.y, (int)blockIdx.z);
}

#else

typedef struct {
    const unsigned char *raw;
    void *out;
    const int *plan;
    const unsigned *grid;
    float *tile;
    int resample;
    int rank;
} Launch;

static void *blocks(void *argument)
{
    const Launch *l = argument;
#ifdef EDGEMED_TEAM
    rank = l->rank;
#endif
    for (unsigned i = 0; i < l->grid[0] * l->grid[1] * l->grid[2]; ++i) {
        int x = (int)(i % l->grid[0]), y = (int)(i / l->grid[0] % l->grid[1]), frame = (int)(i / l->grid[0] / l->grid[1]);
        if (!l->resample) {
            direct(l->raw, l->out, l->plan, x, y, frame);
            continue;
        }
        filter_rows(l->raw, l->plan, l->tile, x, y, frame);
        MEET();
        filter_columns(l->plan, l->out, l->tile, x, y, frame);
        MEET(); /* the next block takes the same memory */
    }
    return 0;
}

#ifdef EDGEMED_FAKECUDA /* the host-only libcuda of the tests: parameters are its device addresses */
void *fakecuda_host_pointer(uint64_t pointer);
void fakecuda_access(uint64_t pointer, size_t bytes, int write);

static void *memory(uint64_t pointer, size_t bytes, int write)
{
    if (!bytes)
        return fakecuda_host_pointer(pointer);
    fakecuda_access(pointer, bytes, write);
    return fakecuda_host_pointer(pointer + bytes - 1) ? fakecuda_host_pointer(pointer) : 0; /* both ends are ours */
}
#else
static void *memory(uint64_t pointer, size_t bytes, int write)
{
    (void)bytes;
    (void)write;
    return (void *)(uintptr_t)pointer;
}
#endif

/* params as cuLaunchKernel takes them; the tile is exactly as large as the launch would have it */
static void launch(void **params, const unsigned *grid, int resample)
{
    const uint64_t *raw = params[0], *out = params[1], *words = params[2];
    const int *plan = memory(*words, 0, 0);
    if (!plan)
        return;
    memory(*words, (size_t)plan[WORDS] * sizeof(int), 0);
    size_t raw_size = (size_t)plan[RAW_FRAME] * grid[2] * (plan[RAW_TYPE] == 0 ? 1 : 2);
    size_t out_size = (size_t)plan[OUT_CHANNELS] * (size_t)(plan[OUT_ROWS] * plan[OUT_COLUMNS]) * grid[2];
    size_t tile = (size_t)plan[TILE_ROWS] * (size_t)plan[SPAN] * (size_t)plan[CHANNELS];
    Launch whole = {memory(*raw, raw_size, 0), memory(*out, plan[OUT_TYPE] == 2 ? out_size : out_size * (plan[OUT_TYPE] == 1 ? 2 : 4), 1), plan, grid,
                    0, resample, 0};
    if (!whole.raw || !whole.out)
        return;
    whole.tile = resample ? malloc(tile * sizeof(float)) : 0;
#ifdef EDGEMED_TEAM
    pthread_t team[EDGEMED_TEAM];
    Launch part[EDGEMED_TEAM];
    pthread_barrier_init(&gate, 0, EDGEMED_TEAM);
    for (int i = 0; i < EDGEMED_TEAM; ++i) {
        part[i] = whole;
        part[i].rank = i;
        pthread_create(&team[i], 0, blocks, &part[i]);
    }
    for (int i = 0; i < EDGEMED_TEAM; ++i)
        pthread_join(team[i], 0);
    pthread_barrier_destroy(&gate);
#else
    blocks(&whole);
#endif
    free(whole.tile);
}

/* Names that the host-only libcuda looks for: sizes of the parameters, and the launch itself. */
#define TWIN(name, resample)                                                                              \
    const unsigned char name##_sizes[] = {8, 8, 8, 0};                                                    \
    void name##_host(void **params, const unsigned grid[3], const unsigned block[3], void *context);      \
    void name##_host(void **params, const unsigned grid[3], const unsigned block[3], void *context)       \
    {                                                                                                     \
        (void)block;                                                                                      \
        (void)context;                                                                                    \
        launch(params, grid, resample);                                                                   \
    }

TWIN(edgemed_direct, 0)
TWIN(edgemed_resample, 1)

#endif
