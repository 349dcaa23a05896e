/* The time of MPI_Allreduce (sum) of f64, as rank 0 sees it. Usage: allreduce BYTES CALLS
   Prints p50 and p99 in microseconds. Every result is checked. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    if (argc != 3)
        MPI_Abort(MPI_COMM_WORLD, 2);
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int count = atoi(argv[1]) / (int)sizeof(double), calls = atoi(argv[2]), warm_up = calls / 10 + 1;
    double *in = malloc(count * sizeof(double)), *out = malloc(count * sizeof(double));
    double *times = malloc(calls * sizeof(double));
    for (int i = 0; i < count; i++)
        in[i] = rank + i;
    for (int call = -warm_up; call < calls; call++) {
        /* All start together, so that the time is that of the reduction and not of a late process. */
        MPI_Barrier(MPI_COMM_WORLD);
        double begin = MPI_Wtime();
        MPI_Allreduce(in, out, count, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
        double end = MPI_Wtime();
        if (call >= 0)
            times[call] = (end - begin) * 1e6;
        for (int i = 0; i < count; i += 4096)
            if (out[i] != size * (size - 1) / 2.0 + (double)size * i) {
                fprintf(stderr, "element %d is %f\n", i, out[i]);
                MPI_Abort(MPI_COMM_WORLD, 1);
            }
    }
    if (rank == 0) {
        qsort(times, calls, sizeof(double), by_value);
        printf("%.3f %.3f\n", times[calls / 2], times[calls * 99 / 100]);
    }
    MPI_Finalize();
    return 0;
}
