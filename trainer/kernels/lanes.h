/* What the kernels share. A tensor is float32, channels last: rows of `channels` floats, one row a pixel; channels is a multiple of
 * LANES. Work is split evenly over `threads` threads, in the same way each time, so that the same number of threads gives the same
 * bits. Functions that can run out of memory return 0, or -1 when they have.
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
