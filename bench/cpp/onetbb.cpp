/* oneTBB's fork and join, for bench/src/onetbb.rs, which hands over what to run as functions with their data. */

#include <cstddef>

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_invoke.h>
#include <oneapi/tbb/task_arena.h>

namespace {

using Body = void (*)(void *);

struct Threads {
    explicit Threads(std::size_t threads)
        : allowed(oneapi::tbb::global_control::max_allowed_parallelism, threads),
          arena(static_cast<int>(threads)) {}

    // Or there are never more threads than cores.
    oneapi::tbb::global_control allowed;
    oneapi::tbb::task_arena arena;
};

} // namespace

// The one who enters is one of the threads. They stay until the process ends.
extern "C" void *onetbb_start(std::size_t threads) { return new Threads(threads); }

extern "C" void onetbb_enter(void *threads, Body body, void *data) {
    static_cast<Threads *>(threads)->arena.execute([=] { body(data); });
}

extern "C" void onetbb_join(Body now, void *now_data, Body later, void *later_data) {
    // What comes last is what the caller does at once: so it was seen, and nobody promises it.
    oneapi::tbb::parallel_invoke([=] { later(later_data); }, [=] { now(now_data); });
}
