/* What the kernels share. A tensor is channels last: rows of `channels` elements, one row a pixel; channels is a multiple of LANES.
 * Every file is compiled twice, for elements of float32 and, with BF16 defined, of bfloat16; computed is in float32 either way, and
 * statistics and parameters are float32. Work is split evenly over `threads` threads, in the same way each time, so that the same
 * number of threads gives the same bits. Functions that can run out of memory return 0, or -1 when they have.
 */
#define LANES 16

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int mask __attribute__((vector_size(4 * LANES), aligned(4)));

static const lanes ZERO = {0};

static inline lanes load(const float *p) { return *(const lanes *)p; }
static inline void store(float *p, lanes v) { *(lanes *)p = v; }
static inline lanes where(mask chosen, lanes value) { return (lanes)(chosen & (mask)value); }
static inline lanes choose(mask chosen, lanes value, lanes other)
{
    return (lanes)((chosen & (mask)value) | (~chosen & (mask)other));
}

/* The first of `count` things that are a thread's. */
static inline long begin_of(long count, int thread, int threads) { return count * thread / threads; }

#ifdef BF16

typedef unsigned short element;
typedef unsigned short halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef unsigned int words __attribute__((vector_size(4 * LANES), aligned(4)));
#define KERNEL(name) name##_bf16

/* A bfloat16 is the upper half of a float32. */
static inline lanes get(const element *p) { return (lanes)(__builtin_convertvector(*(const halves *)p, words) << 16); }

/* To the nearest, to the even one of two; a not-a-number, which adding could turn into another value, gets a bit that keeps it one. */
static inline void put(element *p, lanes v)
{
    words w = (words)v, rounded = w + 0x7fff + (w >> 16 & 1);
    mask is_nan = v != v;
    words chosen = ((words)is_nan & (w | 0x400000)) | (~(words)is_nan & rounded);
    *(halves *)p = __builtin_convertvector(chosen >> 16, halves);
}

#else

typedef float element;
#define KERNEL(name) name
static inline lanes get(const element *p) { return load(p); }
static inline void put(element *p, lanes v) { store(p, v); }

#endif
