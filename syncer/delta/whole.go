package delta

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// wholeChunk is how much of the content goes into one zstd frame: frames are made on several cores. That costs 1 % of size
// against 4 MB or one frame for all. The default level makes 5 % less than the fastest for a third more time, which the
// connection hides.
const wholeChunk = 1 << 20

// Compress writes r's content as zstd (RFC 8878), as several frames.
func Compress(ctx context.Context, w io.Writer, r io.Reader) error {
	done := false
	next := func() ([]byte, error) {
		if done {
			return nil, io.EOF
		}
		b := make([]byte, wholeChunk)
		n, err := io.ReadFull(r, b)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			done, err = true, nil // an empty frame for empty content, and for what ends at a chunk's end
		}
		if err != nil {
			return nil, fmt.Errorf("read content: %w", err)
		}
		return b[:n], nil
	}
	begin := func() *zstd.Encoder {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(wholeChunk), zstd.WithEncoderCRC(true), zstd.WithZeroFrames(true))
		if err != nil {
			panic(err) // the options above contradict each other
		}
		return z
	}
	end := func(z *zstd.Encoder) { z.Close() }
	pack := func(z *zstd.Encoder, b []byte) ([]byte, error) { return z.EncodeAll(b, make([]byte, 0, len(b)/2)), nil }
	emit := func(b []byte) error {
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("write content: %w", err)
		}
		return nil
	}
	return pipeline(ctx, next, begin, end, pack, emit)
}

// Decompress reads zstd to its end and writes the content, of at most maxSize bytes. Errors are ErrFormat, the writer's,
// the reader's or the context's. Content that
// was cut short between two frames is not noticed.
func Decompress(ctx context.Context, w io.Writer, r io.Reader, maxSize int64) error {
	in := &noteReader{r: r}
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(2*wholeChunk))
	if err != nil {
		return fmt.Errorf("decompress: %w", err)
	}
	defer z.Close()
	b := make([]byte, 256<<10)
	for size := int64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := z.Read(b)
		if size += int64(n); size > maxSize {
			return fmt.Errorf("%w: makes more than %d bytes", ErrFormat, maxSize)
		}
		if _, err := w.Write(b[:n]); err != nil {
			return fmt.Errorf("write content: %w", err)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil && in.err != nil:
			return fmt.Errorf("read content: %w", in.err)
		case err != nil:
			return fmt.Errorf("%w: %v", ErrFormat, err)
		}
	}
}

// noteReader keeps its reader's failure, to tell it from bad content.
type noteReader struct {
	r   io.Reader
	err error
}

func (n *noteReader) Read(p []byte) (int, error) {
	c, err := n.r.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		n.err = err
	}
	return c, err
}
