/* The loops of bench/src/numa/loops.rs, as gcc's OpenMP does them.
 *
 * numa triad|touch|mixed N PIECE WARM_UP_MS BUDGET_MS
 *
 * Prints its samples, in nanoseconds an element, and the shares of the last pass, as one line of JSON. Checks what it
 * computes. OMP_NUM_THREADS and OMP_PROC_BIND say with how many threads, and where. */

#define _GNU_SOURCE
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TASKS 8
#define STEPS 70000
#define MOST_PAGES 1024

static double *a, *b, *c;
static long n, piece, pieces;
/* Of each piece: the thread and the node that worked on it last, and the thread that touched it first. */
static int *thread_of, *node_of, *first;

static void mark(long number) {
    unsigned cpu, node = 0;
    syscall(SYS_getcpu, &cpu, &node, NULL);
    thread_of[number] = omp_get_thread_num();
    node_of[number] = (int)node;
}

static long end_of(long number) {
    return (number + 1) * piece < n ? (number + 1) * piece : n;
}

static double from(long i) {
    return (double)(i % 1000);
}

static void touch_triad(void) {
#pragma omp parallel for schedule(static)
    for (long number = 0; number < pieces; number++) {
        mark(number);
        for (long i = number * piece; i < end_of(number); i++) {
            a[i] = 0.0;
            b[i] = from(i);
            c[i] = from(i + 1);
        }
    }
}

static void triad_of(long number) {
    mark(number);
    for (long i = number * piece; i < end_of(number); i++)
        a[i] = b[i] + 3.0 * c[i];
}

static void triad(void) {
#pragma omp parallel for schedule(static)
    for (long number = 0; number < pieces; number++)
        triad_of(number);
}

static void compute(void) {
    volatile double start = 0.3;
    double x = start;
    for (int step = 0; step < STEPS; step++)
        x = 3.9 * x * (1.0 - x);
    start = x;
}

static void mixed(void) {
    long tasks = TASKS * (long)omp_get_max_threads();
#pragma omp parallel
#pragma omp single
    {
        for (long i = 0; i < tasks; i++)
#pragma omp task
            compute();
#pragma omp taskloop
        for (long number = 0; number < pieces; number++)
            triad_of(number);
    }
}

static void touch(void) {
#pragma omp parallel for schedule(static)
    for (long number = 0; number < pieces; number++) {
        mark(number);
        for (long i = number * piece; i < end_of(number); i++)
            a[i] = 1.0;
    }
}

static void uneven(void) {
#pragma omp parallel for schedule(guided)
    for (long number = 0; number < pieces; number++) {
        mark(number);
        for (long pass = 0; pass < 1 + 4 * number / pieces; pass++)
            for (long i = number * piece; i < end_of(number); i++)
                *(volatile double *)&a[i] = 2.0 - *(volatile double *)&a[i];
    }
}

/* Counts the pages of a piece, and those that lie where it was worked on last. */
static void look(long number, long *pages, long *local) {
    static void *asked[MOST_PAGES];
    static int status[MOST_PAGES];
    long page = sysconf(_SC_PAGESIZE), count = 0;
    char *end = (char *)&a[end_of(number)];
    for (char *at = (char *)&a[number * piece]; at < end && count < MOST_PAGES; at += page)
        asked[count++] = (void *)((unsigned long)at & ~(unsigned long)(page - 1));
    if (syscall(SYS_move_pages, 0, count, asked, NULL, status, 0) != 0)
        return;
    for (long i = 0; i < count; i++) {
        *pages += status[i] >= 0;
        *local += status[i] >= 0 && status[i] == node_of[number];
    }
}

int main(int count, char **args) {
    if (count != 6)
        return 2;
    int is_touch = strcmp(args[1], "touch") == 0, is_mixed = strcmp(args[1], "mixed") == 0;
    n = atol(args[2]);
    piece = atol(args[3]);
    pieces = (n + piece - 1) / piece;
    double warm = atof(args[4]) / 1e3, budget = atof(args[5]) / 1e3;
    a = malloc(sizeof(double) * n);
    b = malloc(sizeof(double) * n);
    c = malloc(sizeof(double) * n);
    thread_of = calloc(pieces, sizeof(int));
    node_of = calloc(pieces, sizeof(int));
    first = calloc(pieces, sizeof(int));
    double touching = omp_get_wtime();
    is_touch ? touch() : touch_triad();
    touching = omp_get_wtime() - touching;
    memcpy(first, thread_of, pieces * sizeof(int));

    double begin = omp_get_wtime(), measured = 0.0;
    const char *between = "{\"told\":[[";
    while (measured < budget) {
        double start = omp_get_wtime();
        is_touch ? uneven() : is_mixed ? mixed() : triad();
        double end = omp_get_wtime();
        if (start - begin < warm)
            continue;
        printf("%s%.6f", between, (end - start) * 1e9 / (double)n);
        between = ",";
        measured += end - start;
    }
    for (long i = 0; i < n; i++)
        if (a[i] != (is_touch ? 1.0 : from(i) + 3.0 * from(i + 1))) {
            fprintf(stderr, "%.17g at %ld\n", a[i], i);
            return 1;
        }
    long pages = 0, local = 0, stolen = 0;
    for (long number = 0; number < pieces; number++) {
        look(number, &pages, &local);
        stolen += thread_of[number] != first[number];
    }
    printf("],[");
    if (pages > 0)
        printf("[\"local %%\",%.2f],[\"remote %%\",%.2f],", 100.0 * local / pages, 100.0 * (pages - local) / pages);
    printf("[\"stolen %%\",%.2f]", 100.0 * stolen / pieces);
    if (is_touch)
        printf(",[\"touch ms\",%.3f]", touching * 1e3);
    printf("]]}\n");
    return 0;
}
