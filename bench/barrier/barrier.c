/* The barest barrier of processes with several threads through one TCP server. Usage: barrier PROCESSES THREADS MS

   The threads of a process meet at a mutex and a condition variable. The last to arrive sends one byte to the server,
   reads one byte back and wakes the others. The server, one thread with epoll, counts a byte of each process and then
   answers each with one. With one process of one thread it is a bare round trip of a byte.
   Prints p50 and p99 in microseconds of a barrier as one thread sees it, over MS milliseconds after a warm-up. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WARM_UP_MS = 200, PROCESSES_MAX = 256, THREADS_MAX = 64, TIMES_MAX = 1 << 20 };
enum { GO = 'g', MEASURE = 'm', STOP = 's' };

static int threads;
static int server_fd; /* A client's connection. */
static int reports;   /* The first process prints. */

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void no_delay(int fd)
{
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
        die("TCP_NODELAY");
}

/* Ends with its parent, or after a while. */
static void bounded(int ms)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(ms / 1000 + 20);
}

static void serve(int listener, int processes, int ms)
{
    int clients[PROCESSES_MAX], epoll = epoll_create1(0), arrived = 0;
    for (int i = 0; i < processes; i++) {
        clients[i] = accept(listener, NULL, NULL);
        if (clients[i] < 0)
            die("accept");
        no_delay(clients[i]);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = clients[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i], &event))
            die("epoll_ctl");
    }
    double begin = now_us();
    char answer = GO;
    while (answer != STOP) {
        struct epoll_event events[PROCESSES_MAX];
        int ready = epoll_wait(epoll, events, PROCESSES_MAX, -1);
        for (int i = 0; i < ready; i++) {
            char byte;
            if (read(events[i].data.fd, &byte, 1) != 1)
                die("a client left");
            arrived++;
        }
        if (arrived < processes)
            continue;
        arrived = 0;
        double elapsed_ms = (now_us() - begin) / 1e3;
        answer = elapsed_ms < WARM_UP_MS ? GO : elapsed_ms < WARM_UP_MS + ms ? MEASURE : STOP;
        for (int i = 0; i < processes; i++)
            if (write(clients[i], &answer, 1) != 1)
                die("write to a client");
    }
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static int waiting;
static unsigned long generation;
static char answer;

static char barrier(void)
{
    pthread_mutex_lock(&mutex);
    unsigned long mine = generation;
    if (++waiting == threads) {
        char byte = 'b';
        if (write(server_fd, &byte, 1) != 1 || read(server_fd, &byte, 1) != 1)
            die("the server left");
        waiting = 0;
        answer = byte;
        generation++;
        pthread_cond_broadcast(&released);
    } else {
        while (generation == mine)
            pthread_cond_wait(&released, &mutex);
    }
    /* No thread can begin and finish the next barrier before this one has read the answer: it would have to arrive. */
    char mine_to_return = answer;
    pthread_mutex_unlock(&mutex);
    return mine_to_return;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *rank(void *argument)
{
    int first = argument != NULL && reports, count = 0;
    double *times = first ? malloc(TIMES_MAX * sizeof(double)) : NULL;
    for (;;) {
        double begin = now_us();
        char answer = barrier();
        if (answer == STOP)
            break;
        if (first && answer == MEASURE && count < TIMES_MAX)
            times[count++] = now_us() - begin;
    }
    if (first) {
        if (count == 0) {
            fprintf(stderr, "no barrier within the time\n");
            exit(1);
        }
        qsort(times, count, sizeof(double), by_value);
        printf("%.3f %.3f\n", times[count / 2], times[(int)(count * 0.99)]);
        fflush(stdout);
    }
    return NULL;
}

static void client(struct sockaddr_in *address)
{
    server_fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(server_fd, (struct sockaddr *)address, sizeof *address))
        die("connect");
    no_delay(server_fd);
    pthread_t ids[THREADS_MAX];
    for (long i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, rank, NULL))
            die("pthread_create");
    rank(&threads);
    for (int i = 1; i < threads; i++)
        pthread_join(ids[i], NULL);
}

int main(int argc, char **argv)
{
    int processes = argc == 4 ? atoi(argv[1]) : 0, ms = argc == 4 ? atoi(argv[3]) : 0;
    threads = argc == 4 ? atoi(argv[2]) : 0;
    if (processes < 1 || processes > PROCESSES_MAX || threads < 1 || threads > THREADS_MAX || ms < 1) {
        fprintf(stderr, "usage: barrier PROCESSES THREADS MS\n");
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, PROCESSES_MAX) ||
        getsockname(listener, (struct sockaddr *)&address, &length))
        die("listen");
    for (int i = 0; i <= processes; i++) {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child == 0) {
            bounded(ms);
            reports = i == 1;
            if (i == 0)
                serve(listener, processes, ms);
            else
                client(&address);
            return 0;
        }
    }
    int failed = 0, status;
    while (wait(&status) > 0)
        failed |= status;
    return failed != 0;
}
