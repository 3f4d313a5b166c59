// The real sync.Pool, and Go's own allocator, at the loops of bench/src/pools.
//
// Prints one line of JSON, as a child of the runner does. Goroutines are locked to threads, so that time is
// that of a thread's own CPU.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	line        = 64
	page        = 4096
	mostSamples = 4000
	ring        = 8
	batch       = 32
	handed      = 1024
)

type costs struct {
	OperationsPerSecond     float64 `json:"operations_per_second"`
	MinorFaultsPerOperation float64 `json:"minor_faults_per_operation"`
	PeakKib                 uint64  `json:"peak_kib"`
}

// What to do, as the runner says it.
type task struct {
	loop    string
	bytes   int
	depth   int
	touch   string
	zeroed  bool
	threads int
	budget  time.Duration
	idle    time.Duration
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func main() {
	if len(os.Args) != 9 {
		fmt.Fprintln(os.Stderr, "usage: sync_pool LOOP BYTES DEPTH TOUCH ZEROED THREADS BUDGET_MS IDLE_US")
		os.Exit(1)
	}
	t := task{
		loop:    os.Args[1],
		bytes:   number(os.Args[2]),
		depth:   number(os.Args[3]),
		touch:   os.Args[4],
		zeroed:  os.Args[5] == "true",
		threads: number(os.Args[6]),
		budget:  time.Duration(number(os.Args[7])) * time.Millisecond,
		idle:    time.Duration(number(os.Args[8])) * time.Microsecond,
	}
	runtime.GOMAXPROCS(t.threads)
	var samples []float64
	var took costs
	switch t.loop {
	case "same":
		samples, took = same(t)
	case "handover":
		samples, took = handover(t)
	default:
		fmt.Fprintln(os.Stderr, "there is no loop "+t.loop)
		os.Exit(1)
	}
	said := map[string]any{"measured": map[string]any{"samples": samples, "costs": took}}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func threadCPU() time.Duration {
	const threadCPUTime = 3
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadCPUTime, uintptr(unsafe.Pointer(&at)), 0)
	return time.Duration(at.Nano())
}

func minorFaults() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return usage.Minflt
}

func peakKib() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for _, l := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(l, "VmHWM:") {
			rest := strings.TrimPrefix(l, "VmHWM:")
			kib, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib
		}
	}
	return 0
}

// Which bytes of an object are written: so many, so far apart.
type touches struct {
	count, apart int
}

// Writes to an object, which is known by its first byte.
func touch(object *byte, to touches) {
	for at := 0; at < to.count; at++ {
		*(*byte)(unsafe.Add(unsafe.Pointer(object), at*to.apart)) = 1
	}
}

func (t task) touches() touches {
	each := func(apart int) touches {
		return touches{(t.bytes + apart - 1) / apart, apart}
	}
	switch t.touch {
	case "nothing":
		return touches{}
	case "all":
		return each(line)
	case "pages":
		return each(page)
	default:
		return touches{1, line}
	}
}

func zero(object []byte) {
	for at := range object {
		object[at] = 0
	}
}

// What bench/src/pools/memory.rs has as its costly constructor.
func construct(object []byte) {
	hash := uint64(0xcbf29ce484222325)
	for at := range object {
		hash = (hash ^ uint64(at)) * 0x100000001b3
		object[at] = byte(hash >> 56)
	}
}

func newPool(t task, costly bool) *sync.Pool {
	bytes := t.bytes
	return &sync.Pool{New: func() any {
		object := make([]byte, bytes)
		if costly {
			construct(object)
		}
		return &object[0]
	}}
}

// Rounds of taking, touching and giving back.
func rounds(pool *sync.Pool, out []*byte, to touches, zeroed bool, bytes int, rounds int) {
	for ; rounds > 0; rounds-- {
		for at := range out {
			object := pool.Get().(*byte)
			touch(object, to)
			out[at] = object
		}
		for _, object := range out {
			if zeroed {
				zero(unsafe.Slice(object, bytes))
			}
			pool.Put(object)
		}
	}
}

// One object out at a time, which needs no place to keep it.
func roundsOfOne(pool *sync.Pool, to touches, zeroed bool, bytes int, rounds int) {
	for ; rounds > 0; rounds-- {
		object := pool.Get().(*byte)
		touch(object, to)
		if zeroed {
			zero(unsafe.Slice(object, bytes))
		}
		pool.Put(object)
	}
}

func same(t task) ([]float64, costs) {
	pool := newPool(t, t.touch == "costly")
	to := t.touches()
	most := mostSamples / t.threads
	sample := 20 * time.Microsecond
	if t.budget/time.Duration(most) > sample {
		sample = t.budget / time.Duration(most)
	}
	var ready, end, done sync.WaitGroup
	ready.Add(t.threads)
	end.Add(t.threads)
	done.Add(t.threads)
	begin, leave := make(chan struct{}), make(chan struct{})
	samples := make([][]float64, t.threads)
	operations := make([]float64, t.threads)
	for thread := 0; thread < t.threads; thread++ {
		go func(thread int) {
			runtime.LockOSThread()
			defer done.Done()
			out := make([]*byte, t.depth)
			timed := func(n int) time.Duration {
				start := threadCPU()
				if t.depth == 1 {
					roundsOfOne(pool, to, t.zeroed, t.bytes, n)
				} else {
					rounds(pool, out, to, t.zeroed, t.bytes, n)
				}
				took := threadCPU() - start
				if t.idle > 0 {
					time.Sleep(t.idle)
				}
				return took
			}
			n := 1
			warm := time.Now()
			for {
				if timed(n) < sample {
					n *= 2
				} else if time.Since(warm) >= t.budget/5 {
					break
				}
			}
			own := make([]float64, 0, most)
			each := float64(n * t.depth)
			ready.Done()
			<-begin
			start := time.Now()
			for len(own) == 0 || (time.Since(start) < t.budget && len(own) < most) {
				own = append(own, float64(timed(n).Nanoseconds())/each)
			}
			samples[thread] = own
			operations[thread] = each * float64(len(own))
			end.Done()
			<-leave
		}(thread)
	}
	ready.Wait()
	start, faults := time.Now(), minorFaults()
	close(begin)
	end.Wait()
	took, faulted := time.Since(start), minorFaults()-faults
	close(leave)
	done.Wait()
	var all []float64
	total := 0.0
	for thread := range samples {
		all = append(all, samples[thread]...)
		total += operations[thread]
	}
	return all, costs{total / took.Seconds(), float64(faulted) / total, peakKib()}
}

// A ring for two, as the one that is used in Rust: each keeps what it last saw of the other's end.
type spsc struct {
	slots [ring][batch]*byte
	_     [128]byte
	head  uint64
	_     [120]byte
	tail  uint64
	_     [120]byte
	over  uint32
}

func handover(t task) ([]float64, costs) {
	pairs := t.threads / 2
	if pairs < 1 {
		pairs = 1
	}
	pool := newPool(t, false)
	var done, end, ready sync.WaitGroup
	begin, leave := make(chan struct{}), make(chan struct{})
	all := make([][]float64, pairs)
	done.Add(2 * pairs)
	end.Add(pairs)
	ready.Add(pairs)
	for pair := 0; pair < pairs; pair++ {
		way := new(spsc)
		go func() {
			runtime.LockOSThread()
			defer done.Done()
			consume(pool, way)
		}()
		go func(pair int) {
			runtime.LockOSThread()
			defer done.Done()
			seen := uint64(0)
			timed := func() float64 {
				start := time.Now()
				for n := 0; n < handed/batch; n++ {
					var objects [batch]*byte
					for at := range objects {
						objects[at] = pool.Get().(*byte)
						touch(objects[at], touches{1, line})
					}
					tail := way.tail
					for tries := 0; tail-seen == ring; tries++ {
						seen = atomic.LoadUint64(&way.head)
						wait(tries)
					}
					way.slots[tail%ring] = objects
					atomic.StoreUint64(&way.tail, tail+1)
				}
				return float64(time.Since(start).Nanoseconds()) / handed
			}
			warm := time.Now()
			for time.Since(warm) < t.budget/5 {
				timed()
			}
			own := make([]float64, 0, mostSamples)
			ready.Done()
			<-begin
			start := time.Now()
			for len(own) == 0 || (time.Since(start) < t.budget && len(own) < mostSamples) {
				own = append(own, timed())
			}
			all[pair] = own
			end.Done()
			<-leave
			atomic.StoreUint32(&way.over, 1)
		}(pair)
	}
	ready.Wait()
	start, faults := time.Now(), minorFaults()
	close(begin)
	end.Wait()
	took, faulted := time.Since(start), minorFaults()-faults
	close(leave)
	done.Wait()
	var samples []float64
	for _, own := range all {
		samples = append(samples, own...)
	}
	objects := float64(len(samples) * handed)
	return samples, costs{objects / took.Seconds(), float64(faulted) / objects, peakKib()}
}

func consume(pool *sync.Pool, way *spsc) {
	seen := uint64(0)
	for {
		head := way.head
		for tries := 0; seen == head; tries++ {
			over := atomic.LoadUint32(&way.over)
			seen = atomic.LoadUint64(&way.tail)
			if seen == head {
				if over == 1 {
					return
				}
				wait(tries)
			}
		}
		objects := way.slots[head%ring]
		atomic.StoreUint64(&way.head, head+1)
		for _, object := range objects {
			touch(object, touches{1, line})
			pool.Put(object)
		}
	}
}

// Spins at first, then lets others have the CPU.
func wait(tries int) {
	if tries > 64 {
		syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
	}
}
