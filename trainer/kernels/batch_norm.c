/* Batch normalisation that learns, and the ReLU after it, in 8 passes over memory: torch takes 13. */
#include <math.h>
#include <stdlib.h>

#include "lanes.h"

#define BLOCK 64

/* Two sums for every channel. They go over BLOCK rows in float and from there on in double: a float alone loses the small terms of
 * a long sum. */
struct sums {
    long channels;
    int threads;
    double *of_threads; /* threads × 2 × channels; the first thread's have all of them in the end */
};

static int sums_begin(struct sums *sums, long channels, int threads)
{
    *sums = (struct sums){channels, threads, calloc((size_t)threads * 2 * channels, sizeof(double))};
    return sums->of_threads ? 0 : -1;
}

static inline void sums_add(struct sums *sums, int thread, long channel, lanes first, lanes second)
{
    double *own = sums->of_threads + thread * 2 * sums->channels + channel;
    for (int k = 0; k < LANES; k++) {
        own[k] += first[k];
        own[sums->channels + k] += second[k];
    }
}

static void sums_end(struct sums *sums)
{
    for (int t = 1; t < sums->threads; t++)
        for (long k = 0; k < 2 * sums->channels; k++)
            sums->of_threads[k] += sums->of_threads[t * 2 * sums->channels + k];
}

/* Batch normalisation that learns, and the ReLU after it: y = max(0, scale x + shift), with scale = weight / deviation and
 * shift = bias - scale mean. Not-a-numbers pass on: "not below" is not "above".
 *
 * residual, which may be NULL, is added to y. saved: scale, shift, mean and 1 / deviation for the way back, `channels` each. The
 * running averages move by `momentum`, that of the variance towards the unbiased one.
 */
int KERNEL(norm_relu)(const element *x, const float *weight, const float *bias, float *running_mean, float *running_variance,
                      const element *residual, double momentum, double epsilon, long rows, long channels, int threads, element *y,
                      float *saved)
{
    float *scale = saved, *shift = saved + channels, *mean = saved + 2 * channels, *inverse = saved + 3 * channels;
    long blocks = (rows + BLOCK - 1) / BLOCK;
    struct sums sums;
    if (sums_begin(&sums, channels, threads))
        return -1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++)
        for (long b = begin_of(blocks, t, threads); b < begin_of(blocks, t + 1, threads); b++) {
            long first = b * BLOCK, count = rows - first < BLOCK ? rows - first : BLOCK;
            for (long c = 0; c < channels; c += LANES) {
                const element *p = x + first * channels + c;
                /* from the first row on, not from 0: a variance far smaller than the mean survives */
                lanes origin = get(x + c), sum = ZERO, square = ZERO;
                for (long r = 0; r < count; r++, p += channels) {
                    lanes v = get(p) - origin;
                    sum += v;
                    square += v * v;
                }
                sums_add(&sums, t, c, sum, square);
            }
        }
    sums_end(&sums);
    for (long c = 0; c < channels; c++) {
        lanes origin = get(x + c / LANES * LANES);
        double from_origin = sums.of_threads[c] / rows;
        double variance = sums.of_threads[channels + c] / rows - from_origin * from_origin;
        if (variance < 0) /* by rounding; not fmax, which takes 0 for a not-a-number */
            variance = 0;
        double true_mean = from_origin + origin[c % LANES], true_inverse = 1 / sqrt(variance + epsilon);
        mean[c] = true_mean;
        inverse[c] = true_inverse;
        scale[c] = weight[c] * true_inverse;
        shift[c] = bias[c] - weight[c] * true_inverse * true_mean;
        running_mean[c] += momentum * (true_mean - running_mean[c]);
        running_variance[c] += momentum * (variance * rows / (rows - 1) - running_variance[c]);
    }
    free(sums.of_threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++)
        for (long r = begin_of(rows, t, threads); r < begin_of(rows, t + 1, threads); r++)
            for (long c = 0; c < channels; c += LANES) {
                lanes v = get(x + r * channels + c) * load(scale + c) + load(shift + c);
                v = where(~(v <= ZERO), v);
                put(y + r * channels + c, residual ? v + get(residual + r * channels + c) : v);
            }
    return 0;
}

/* The way back: with g = dy where y > 0, else 0,
 *
 *   dx = scale (g - mean(g) - (x - mean(x)) mean(g (x - mean(x))) / variance(x)) = scale g + slope x + offset
 *
 * dy has `stride` elements from row to row: it may be a part of a concatenation's gradient.
 */
int KERNEL(norm_relu_backward)(const element *x, const element *dy, long stride, const float *saved, long rows, long channels,
                               int threads, element *dx, float *dweight, float *dbias)
{
    const float *scale = saved, *shift = saved + channels, *mean = saved + 2 * channels, *inverse = saved + 3 * channels;
    long blocks = (rows + BLOCK - 1) / BLOCK;
    float *slope = malloc(2 * channels * sizeof *slope), *offset = slope + channels;
    struct sums sums;
    if (!slope || sums_begin(&sums, channels, threads)) {
        free(slope);
        return -1;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++)
        for (long b = begin_of(blocks, t, threads); b < begin_of(blocks, t + 1, threads); b++) {
            long first = b * BLOCK, count = rows - first < BLOCK ? rows - first : BLOCK;
            for (long c = 0; c < channels; c += LANES) {
                const element *p = x + first * channels + c, *q = dy + first * stride + c;
                lanes a = load(scale + c), o = load(shift + c), m = load(mean + c), sum = ZERO, product = ZERO;
                for (long r = 0; r < count; r++, p += channels, q += stride) {
                    lanes v = get(p), g = where(~(v * a + o <= ZERO), get(q));
                    sum += g;
                    product += g * (v - m);
                }
                sums_add(&sums, t, c, sum, product);
            }
        }
    sums_end(&sums);
    for (long c = 0; c < channels; c++) {
        double sum = sums.of_threads[c], product = sums.of_threads[channels + c];
        double true_slope = -(double)scale[c] * inverse[c] * inverse[c] * product / rows;
        dbias[c] = sum;
        dweight[c] = product * inverse[c];
        slope[c] = true_slope;
        offset[c] = -scale[c] * sum / rows - true_slope * mean[c];
    }
    free(sums.of_threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++)
        for (long r = begin_of(rows, t, threads); r < begin_of(rows, t + 1, threads); r++)
            for (long c = 0; c < channels; c += LANES) {
                lanes v = get(x + r * channels + c), a = load(scale + c);
                lanes g = where(~(v * a + load(shift + c) <= ZERO), get(dy + r * stride + c));
                put(dx + r * channels + c, g * a + (v * load(slope + c) + load(offset + c)));
            }
    free(slope);
    return 0;
}
