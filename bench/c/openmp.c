/* The loops of bench/src/forkjoin/memory.rs and flat.rs, as gcc's OpenMP does them.
 *
 * openmp sum|flat|flat-uneven N WARM_UP_MS BUDGET_MS
 *
 * Prints its samples, in milliseconds, as one line of JSON. Checks what it computes. OMP_NUM_THREADS
 * says with how many threads. */

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double *data;
static long n;
static int uneven;

static double sum_of_squares(void) {
    double sum = 0.0;
#pragma omp parallel for simd reduction(+ : sum) schedule(static)
    for (long i = 0; i < n; i++)
        sum += data[i] * data[i];
    return sum;
}

/* The logistic map: nothing to vectorise along it, nothing to fetch. */
static double steps(long i) {
    long count = uneven ? 1 + 127 * i / n : 64;
    double x = (double)(i + 1) / (double)(n + 1);
    for (long step = 0; step < count; step++)
        x = 3.9 * x * (1.0 - x);
    return x;
}

static double loop(void) {
#pragma omp parallel for schedule(guided)
    for (long i = 0; i < n; i++)
        data[i] = steps(i);
    return data[n / 2];
}

int main(int count, char **args) {
    if (count != 5)
        return 2;
    int is_sum = strcmp(args[1], "sum") == 0;
    uneven = strcmp(args[1], "flat-uneven") == 0;
    n = atol(args[2]);
    double warm = atof(args[3]) / 1e3, budget = atof(args[4]) / 1e3;
    data = malloc(sizeof(double) * n);
    double expected = 0.0;
    for (long i = 0; i < n; i++) {
        data[i] = (double)(i % 1000);
        expected += data[i] * data[i];
    }
    if (!is_sum)
        expected = steps(n / 2);

    double begin = omp_get_wtime(), measured = 0.0;
    int first = 1;
    for (;;) {
        double start = omp_get_wtime();
        double value = is_sum ? sum_of_squares() : loop();
        double end = omp_get_wtime();
        if (value != expected) {
            fprintf(stderr, "%.17g in place of %.17g\n", value, expected);
            return 1;
        }
        if (start - begin < warm)
            continue;
        printf(first ? "{\"samples\":[%.6f" : ",%.6f", (end - start) * 1e3);
        first = 0;
        measured += end - start;
        if (measured >= budget)
            break;
    }
    printf("]}\n");
    return 0;
}
