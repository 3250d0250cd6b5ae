// The ticker calls step over and over: whatever is set in it is hit soon.
package main

import (
	"fmt"
	"os"
	"time"
)

func step(n int) int {
	doubled := n * 2
	return doubled + 1 // here
}

func main() {
	fmt.Println("started", os.Getpid())
	sum := 0
	for n := 0; ; n++ {
		sum += step(n)
		time.Sleep(2 * time.Millisecond)
	}
}
