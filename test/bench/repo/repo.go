// Package repo makes git repositories of any size for benchmarks, by git fast-import: a tree of Go packages, people who each
// know some of them, reviews by trailers.
package repo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"
)

// Size is how large a repository is.
type Size struct {
	Commits, Files, People int
	Seed                   uint64
}

// Large is the size at which the project promises its times.
var Large = Size{Commits: 50_000, Files: 10_000, People: 300, Seed: 1}

// End is when the last commit was made. It is fixed, so that the same size is the same repository, to the hash.
var End = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// Make makes a repository in dir, which it creates, with a branch main and a work tree that is not checked out.
func Make(ctx context.Context, dir string, s Size) error {
	if err := exec.CommandContext(ctx, "git", "init", "-q", "-b", "main", dir).Run(); err != nil {
		return fmt.Errorf("git init: %w", err)
	}
	cmd := exec.CommandContext(ctx, "git", "-C", dir, "fast-import", "--quiet", "--done")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w := bufio.NewWriterSize(in, 1<<20)
	s.write(w)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("git fast-import: %w", err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("git fast-import: %w", err)
	}
	return nil
}

// Path is the n-th file's: packages of ten files, areas of ten packages, fields of ten areas.
func Path(n int) string {
	return fmt.Sprintf("field%d/area%d/package%d/file%d.go", n/1000, n/100%10, n/10%10, n%10)
}

// Person is the n-th person's name and address.
func Person(n int) string { return fmt.Sprintf("Person Number%d <person%d@fairlead.dev>", n, n) }

func (s Size) write(w io.Writer) {
	r := rand.New(rand.NewPCG(s.Seed, 1))
	// Whoever knows an area makes most of its changes, and their neighbours review them.
	knows := func(area int) int { return (area*7 + int(r.ExpFloat64()*2)) % s.People }
	content := func(n, version int) string {
		return fmt.Sprintf("package p\n\n// Version%d is of file %d.\nconst Version%d = %d\n\n%s", version, n, n%10, version, filler[n%len(filler):])
	}
	file := func(n, version int) {
		c := content(n, version)
		fmt.Fprintf(w, "M 644 inline %s\ndata %d\n%s\n", Path(n), len(c), c)
	}
	begin := End.Add(-time.Duration(s.Commits) * time.Hour)
	for c := range s.Commits {
		area := r.IntN(max(1, s.Files/100))
		author, reviewer := knows(area), knows(area)
		at := begin.Add(time.Duration(c) * time.Hour).Unix()
		message := fmt.Sprintf("area%d: change %d\n\nWhat it is for, in two lines, as people write it\nwhere somebody reads it.\n\nReviewed-by: %s\n", area, c, Person(reviewer))
		fmt.Fprintf(w, "commit refs/heads/main\nauthor %s %d +0000\ncommitter %s %d +0000\ndata %d\n%s", Person(author), at, Person(author), at, len(message), message)
		if c == 0 {
			for n := range s.Files {
				file(n, 0)
			}
			continue
		}
		for range 1 + int(r.ExpFloat64()*2) {
			file(min(area*100+r.IntN(100), s.Files-1), c)
		}
	}
	io.WriteString(w, "done\n")
}

// filler makes files of some kilobytes.
var filler = func() string {
	var b []byte
	for i := range 100 {
		b = fmt.Appendf(b, "func f%d(a, b int) int { return a*%d + b }\n", i, i*7919)
	}
	return string(b)
}()
