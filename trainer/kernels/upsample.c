/* Enlarging by two, bilinearly, pixel areas aligned, and putting the result beside another map: without writing the enlarged map
 * by itself first.
 *
 * Along each axis out[2i] = in[i - 1] / 4 + 3 in[i] / 4 and out[2i + 1] = 3 in[i] / 4 + in[i + 1] / 4, where an index past the edge
 * means the edge. A line is made whole along the height first, then along the width.
 */
#include <stdlib.h>
#include <string.h>

#include "lanes.h"

static inline long clamp(long index, long count) { return index < 0 ? 0 : index < count ? index : count - 1; }

/* y has rows of channels + beside: the enlarged x, then `skip`. lines: those of all pictures of x, `height` a picture. */
int KERNEL(concat_upsampled)(const element *x, const element *skip, long lines, long height, long width, long channels, long beside,
                             int threads, element *y)
{
    long stride = channels + beside, failed = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : failed)
    for (int t = 0; t < threads; t++) {
        float *line = malloc(width * channels * sizeof *line);
        failed += !line;
        for (long l = begin_of(2 * lines, t, threads); line && l < begin_of(2 * lines, t + 1, threads); l++) {
            long picture = l / 2 / height, i = l / 2 % height, neighbour = clamp(l % 2 ? i + 1 : i - 1, height);
            const element *near = x + (picture * height + i) * width * channels;
            const element *far = x + (picture * height + neighbour) * width * channels;
            for (long k = 0; k < width * channels; k += LANES)
                store(line + k, 0.75f * get(near + k) + 0.25f * get(far + k));
            for (long w = 0; w < 2 * width; w++) {
                const float *p = line + w / 2 * channels, *q = line + clamp(w % 2 ? w / 2 + 1 : w / 2 - 1, width) * channels;
                element *to = y + (l * 2 * width + w) * stride;
                for (long c = 0; c < channels; c += LANES)
                    put(to + c, 0.75f * load(p + c) + 0.25f * load(q + c));
                memcpy(to + channels, skip + (l * 2 * width + w) * beside, beside * sizeof *to);
            }
        }
        free(line);
    }
    return failed ? -1 : 0;
}

/* The gradient of the enlarged part: dy's rows are `stride` elements apart. */
int KERNEL(upsample_backward)(const element *dy, long stride, long lines, long height, long width, long channels, int threads, element *dx)
{
    long failed = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : failed)
    for (int t = 0; t < threads; t++) {
        float *line = malloc(2 * width * channels * sizeof *line);
        failed += !line;
        for (long l = begin_of(lines, t, threads); line && l < begin_of(lines, t + 1, threads); l++) {
            long picture = l / height, i = l % height;
            const element *from[4];
            for (long k = 0; k < 4; k++)
                from[k] = dy + (picture * 2 * height + clamp(2 * i - 1 + k, 2 * height)) * 2 * width * stride;
            for (long w = 0; w < 2 * width; w++)
                for (long c = 0; c < channels; c += LANES) {
                    long k = w * stride + c;
                    store(line + w * channels + c,
                          0.75f * (get(from[1] + k) + get(from[2] + k)) + 0.25f * (get(from[0] + k) + get(from[3] + k)));
                }
            for (long w = 0; w < width; w++) {
                const float *at[4];
                for (long k = 0; k < 4; k++)
                    at[k] = line + clamp(2 * w - 1 + k, 2 * width) * channels;
                for (long c = 0; c < channels; c += LANES)
                    put(dx + (l * width + w) * channels + c,
                          0.75f * (load(at[1] + c) + load(at[2] + c)) + 0.25f * (load(at[0] + c) + load(at[3] + c)));
            }
        }
        free(line);
    }
    return failed ? -1 : 0;
}
