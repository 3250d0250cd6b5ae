package delta

import (
	"context"
	"io"
	"sync"
)

// pipeline takes jobs from next until it says io.EOF, does them on several goroutines, and emits their results in order,
// on the calling goroutine. It returns when all its goroutines have ended: the one that calls next, which must therefore
// not block for ever, and the workers. begin makes what one worker alone uses, and end takes it back.
func pipeline[J, R, W any](ctx context.Context, next func() (J, error), begin func() W, end func(W), work func(W, J) (R, error), emit func(R) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	type result struct {
		r   R
		err error
	}
	type task struct {
		job  J
		done chan result // buffered: a worker never waits
	}
	n := workers()
	tasks := make(chan task)
	order := make(chan task, n) // bounds what has been done and not yet emitted
	complete := false           // written before order is closed, read after
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(order)
		defer close(tasks)
		for {
			job, err := next()
			t := task{job, make(chan result, 1)}
			if err != nil {
				if err == io.EOF {
					complete = true
					return
				}
				t.done <- result{err: err}
				select {
				case order <- t:
				case <-ctx.Done():
				}
				return
			}
			select {
			case order <- t:
			case <-ctx.Done():
				return
			}
			select {
			case tasks <- t:
			case <-ctx.Done():
				return
			}
		}
	})
	for range n {
		wg.Go(func() {
			w := begin()
			defer end(w)
			for t := range tasks {
				r, err := work(w, t.job)
				t.done <- result{r, err}
			}
		})
	}
	var err error
	for t := range order {
		if err != nil {
			continue
		}
		select {
		case r := <-t.done:
			if err = r.err; err == nil {
				err = emit(r.r)
			}
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			cancel(err)
		}
	}
	wg.Wait()
	if err == nil && !complete {
		err = context.Cause(ctx)
	}
	cancel(nil)
	return err
}
