package endpoint

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

const (
	reflectFor  = 3 * time.Second
	maxServices = 200
	maxFrame    = 4 << 20
	maxStream   = 16 << 20
)

// The reflection services, the newer first: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md.
var reflections = []string{"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}

// errNoReflection is a service that does not offer it.
var errNoReflection = errors.New("it does not offer gRPC reflection")

// Reflect asks a running service what it has. authority is the name that it is asked by, which proxies before it may go by; conf is
// nil where it speaks without TLS.
//
// A gRPC client would be four megabytes of every agent for two messages. This is HTTP/2 by the standard library, and gRPC's frames.
func Reflect(ctx context.Context, authority string, dial func(context.Context) (net.Conn, error), conf *tls.Config) ([]Endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, reflectFor)
	defer cancel()
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }, TLSClientConfig: conf, Protocols: new(http.Protocols), MaxResponseHeaderBytes: 64 << 10}
	defer t.CloseIdleConnections()
	scheme := "http"
	if conf != nil {
		scheme = "https"
		t.Protocols.SetHTTP2(true)
	} else {
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	for _, service := range reflections {
		out, err := reflectBy(ctx, t, scheme+"://"+authority, service)
		if !errors.Is(err, errNoReflection) {
			if err != nil {
				err = fmt.Errorf("gRPC reflection: %w", err)
			}
			return out, err
		}
	}
	return nil, errNoReflection
}

func reflectBy(ctx context.Context, t http.RoundTripper, base, service string) ([]Endpoint, error) {
	url := base + "/" + service + "/ServerReflectionInfo"
	var names []string
	err := ask(ctx, t, url, [][]byte{frame(7, "*")}, func(answer map[protowire.Number][]byte) error {
		return eachField(answer[6], func(n protowire.Number, v []byte) error { // list_services_response.service
			if n != 1 {
				return nil
			}
			return eachField(v, func(n protowire.Number, v []byte) error { // name
				if n == 1 && len(names) < maxServices && !strings.HasPrefix(string(v), "grpc.reflection.") {
					names = append(names, string(v))
				}
				return nil
			})
		})
	})
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var questions [][]byte
	for _, name := range names {
		questions = append(questions, frame(4, name)) // file_containing_symbol
	}
	var out []Endpoint
	err = ask(ctx, t, url, questions, func(answer map[protowire.Number][]byte) error {
		return eachField(answer[4], func(n protowire.Number, v []byte) error { // file_descriptor_response.file_descriptor_proto
			if n != 1 {
				return nil
			}
			var f descriptorpb.FileDescriptorProto
			if err := proto.Unmarshal(v, &f); err != nil {
				return err
			}
			for _, e := range ofFile(&f, Reflection) {
				// The file's dependencies come too; only what the service said that it serves counts.
				if service, _, _ := strings.Cut(strings.TrimPrefix(e.Method, "/"), "/"); slices.Contains(names, service) {
					out = append(out, e)
				}
			}
			return nil
		})
	})
	return Merge(out), err
}

// ask makes one call of ServerReflectionInfo, with all questions at once: an HTTP/1 server answers nothing, not even that there is no
// such path, before it has the whole request, and one that is read as it goes would wait for it.
func ask(ctx context.Context, t http.RoundTripper, url string, questions [][]byte, each func(answer map[protowire.Number][]byte) error) error {
	req, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(slices.Concat(questions...)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	res, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	status := res.Header.Get("Grpc-Status")
	switch {
	case status == "12" || res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusUnsupportedMediaType || res.StatusCode == http.StatusMethodNotAllowed:
		return errNoReflection
	case res.StatusCode != http.StatusOK || status != "" && status != "0":
		return fmt.Errorf("it answered %s, gRPC status %q %q", res.Status, status, short(res.Header.Get("Grpc-Message")))
	case !strings.HasPrefix(res.Header.Get("Content-Type"), "application/grpc"):
		return errNoReflection // a server that answers 200 to everything
	}
	s := stream{res, io.LimitReader(res.Body, maxStream)}
	for range questions {
		answer, err := s.read()
		if err != nil {
			return err
		}
		if err := each(answer); err != nil {
			return err
		}
	}
	return nil
}

// stream is what comes back of one call of ServerReflectionInfo.
type stream struct {
	res  *http.Response
	body io.Reader
}

// frame is a ServerReflectionRequest with one field, as gRPC frames it.
func frame(field protowire.Number, value string) []byte {
	m := protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), value)
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

// read reads one answer: the fields of a ServerReflectionResponse.
func (s *stream) read() (map[protowire.Number][]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(s.body, head[:]); err != nil {
		if status := s.res.Trailer.Get("Grpc-Status"); status == "12" {
			return nil, errNoReflection
		} else if status != "" {
			return nil, fmt.Errorf("gRPC status %s %q", status, short(s.res.Trailer.Get("Grpc-Message")))
		}
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] != 0 || n > maxFrame {
		return nil, fmt.Errorf("a message of %d bytes, compressed %d, is not read", n, head[0])
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, s.body, int64(n)); err != nil {
		return nil, err
	}
	out := map[protowire.Number][]byte{}
	if err := eachField(b.Bytes(), func(n protowire.Number, v []byte) error { out[n] = v; return nil }); err != nil {
		return nil, err
	}
	if e, refused := out[7]; refused { // error_response
		text := ""
		if err := eachField(e, func(n protowire.Number, v []byte) error {
			if n == 2 {
				text = string(v)
			}
			return nil
		}); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("it answered %q", short(text))
	}
	return out, nil
}

// eachField calls f with the fields of a message that are strings, bytes or messages.
func eachField(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(num, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// ofFile are the methods of a descriptor.
func ofFile(f *descriptorpb.FileDescriptorProto, from Source) []Endpoint {
	// Comments are there where the descriptor was made with them; a path is service 6, index, method 2, index.
	comments := map[[2]int32]string{}
	for _, l := range f.GetSourceCodeInfo().GetLocation() {
		if p := l.GetPath(); len(p) == 4 && p[0] == 6 && p[2] == 2 {
			comments[[2]int32{p[1], p[3]}] = l.GetLeadingComments()
		}
	}
	var out []Endpoint
	for i, s := range f.GetService() {
		service := s.GetName()
		if p := f.GetPackage(); p != "" {
			service = p + "." + service
		}
		for j, m := range s.GetMethod() {
			if method := "/" + service + "/" + m.GetName(); goodMethod(method) {
				out = append(out, Endpoint{Method: method, Description: comments[[2]int32{int32(i), int32(j)}], Sources: []Source{from}})
			}
		}
	}
	return out
}

func short(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}
