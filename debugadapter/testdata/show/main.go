// What a debugger shows: values of all kinds, goroutines, ends of all kinds. The first argument says which.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

type point struct{ X, Y int }

type node struct {
	Name  string
	Next  *node
	Where point
}

type shape interface{ area() int }

func (p point) area() int { return p.X * p.Y }

var total = 7

func add(a, b int) int {
	sum := a + b // add
	return sum
}

func twice(n int) int {
	r := add(n, n) // twice
	return r       // after twice
}

func deep(n int) int {
	if n == 0 {
		return total // bottom
	}
	return deep(n-1) + 1
}

func values() {
	big := make([]int, 1000)
	for i := range big {
		big[i] = i * i
	}
	table := map[string]int{"one": 1, "two": 2}
	wide := map[int]string{}
	for i := range 200 {
		wide[i] = fmt.Sprint("v", i)
	}
	keys := map[point]string{{1, 2}: "p"}
	array := [3]string{"a", "b", "c"}
	list := &node{Name: "first", Next: &node{Name: "second"}, Where: point{3, 4}}
	var any shape = point{5, 6}
	var none *node
	text := "hello"
	bytes := []byte("bytes")
	c := complex(1, 2)
	f := 1.5
	err := errors.New("wrong")
	ch := make(chan int, 2)
	ch <- 1
	n := 41
	n++                                                                                                                                       // values
	n = twice(n)                                                                                                                              // step
	fmt.Fprintln(os.Stderr, big[1], table, len(wide), keys, array, list, any, none, text, bytes, c, f, err, len(ch), n, any.area(), twice(1)) // end
}

func loop() {
	for i := 0; ; i++ {
		total = i
		square := i * i // loop
		total += square
		time.Sleep(time.Millisecond)
	}
}

func threads() {
	var ready, hold sync.WaitGroup
	hold.Add(1)
	for range 50 {
		ready.Add(1)
		go func() {
			ready.Done()
			hold.Wait()
		}()
	}
	ready.Wait()
	for range 50 { // all of them wait in hold by now, or are about to
		runtime.Gosched()
	}
	time.Sleep(50 * time.Millisecond)
	fmt.Fprintln(os.Stderr, total) // threads
	hold.Done()
}

func main() {
	switch os.Args[1] {
	case "values":
		values()
	case "deep":
		fmt.Fprintln(os.Stderr, deep(120))
	case "loop":
		loop()
	case "threads":
		threads()
	case "panic":
		panic(fmt.Sprint("oh ", total))
	case "fatal":
		var m sync.Mutex
		m.Unlock()
	case "nil":
		var p *point
		fmt.Fprintln(os.Stderr, p.X)
	case "exit":
		fmt.Fprintln(os.Stderr, total) // exit
		os.Exit(7)
	}
}
