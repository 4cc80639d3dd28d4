#include "lanes.h"

/* Max-pooling by 2 × 2: `lines` lines of `width` pixels, both even, of all pictures below one another. Without torch's table of which
 * pixel it was, eight bytes for each: the way back looks again. Not-a-numbers pass on. */
void KERNEL(max_pool)(const element *x, long lines, long width, long channels, int threads, element *y)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++)
        for (long l = begin_of(lines / 2, t, threads); l < begin_of(lines / 2, t + 1, threads); l++)
            for (long w = 0; w < width / 2; w++)
                for (long c = 0; c < channels; c += LANES) {
                    const element *p = x + (2 * l * width + 2 * w) * channels + c;
                    const element *others[3] = {p + channels, p + width * channels, p + (width + 1) * channels};
                    lanes most = get(p);
                    for (int k = 0; k < 3; k++) {
                        lanes v = get(others[k]);
                        most = choose((v > most) | (v != v), v, most);
                    }
                    put(y + (l * (width / 2) + w) * channels + c, most);
                }
}

/* The gradient goes to the first of the four that is the largest, as torch's does. dy's rows are `stride` elements apart. */
void KERNEL(max_pool_backward)(const element *x, const element *dy, long stride, long lines, long width, long channels, int threads,
                               element *dx)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++)
        for (long l = begin_of(lines / 2, t, threads); l < begin_of(lines / 2, t + 1, threads); l++)
            for (long w = 0; w < width / 2; w++)
                for (long c = 0; c < channels; c += LANES) {
                    long first = (2 * l * width + 2 * w) * channels + c;
                    long places[4] = {first, first + channels, first + width * channels, first + (width + 1) * channels};
                    lanes g = get(dy + (l * (width / 2) + w) * stride + c), most = get(x + first);
                    for (int k = 1; k < 4; k++) {
                        lanes v = get(x + places[k]);
                        most = choose(v > most, v, most);
                    }
                    mask is_taken = (mask)ZERO;
                    for (int k = 0; k < 4; k++) {
                        mask is_it = (get(x + places[k]) == most) & ~is_taken;
                        put(dx + places[k], where(is_it, g));
                        is_taken |= is_it;
                    }
                }
}
