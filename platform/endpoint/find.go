package endpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"fairlead.dev/platform/registry"
)

const (
	maxEntries = 50_000 // of a folder
	maxDepth   = 12
	maxRead    = 4 << 20 // of a file
	maxFiles   = 500
	folderFor  = 5 * time.Second
)

var errEnough = errors.New("enough")

// Folder finds what a service's repository says: .proto files, descriptors (.pb, .binpb, .protoset, .desc) and OpenAPI documents, whose
// names begin with openapi. What cannot be read is in the error, beside the rest.
func Folder(ctx context.Context, dir string) ([]Endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, folderFor)
	defer cancel()
	root, err := os.OpenRoot(dir) // a link that leads out of it is not followed
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var out []Endpoint
	var errs []error
	entries, files := 0, 0
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if entries++; entries > maxEntries || files >= maxFiles {
			return errEnough
		}
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		if d.IsDir() {
			if b := d.Name(); name != "." && (strings.HasPrefix(b, ".") || strings.HasPrefix(b, "_") || b == "vendor" || b == "node_modules" || b == "testdata" || b == "third_party" || strings.Count(name, "/") >= maxDepth) {
				return fs.SkipDir
			}
			return nil
		}
		kind := kindOf(d.Name())
		if kind == "" || !d.Type().IsRegular() {
			return nil
		}
		files++
		found, err := readFile(root, name, kind)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		out = append(out, found...)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		errs = append(errs, err)
	}
	return Merge(out), errors.Join(errs...)
}

func kindOf(name string) Source {
	name = strings.ToLower(name)
	switch ext := path.Ext(name); {
	case ext == ".proto":
		return Proto
	case ext == ".pb" || ext == ".binpb" || ext == ".protoset" || ext == ".desc":
		return Descriptor
	case strings.HasPrefix(name, "openapi") && (ext == ".yaml" || ext == ".yml" || ext == ".json"):
		return OpenAPI
	}
	return ""
}

func readFile(root *os.Root, name string, kind Source) ([]Endpoint, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRead+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxRead {
		return nil, fmt.Errorf("it has more than %d bytes, and is not read", maxRead)
	}
	switch kind {
	case Proto:
		return parseProto(string(b)), nil
	case OpenAPI:
		return parseOpenAPI(b, strings.HasSuffix(strings.ToLower(name), ".json"))
	}
	return parseDescriptors(b)
}

func parseDescriptors(b []byte) ([]Endpoint, error) {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(b, &set); err != nil {
		return nil, errors.New("it is no FileDescriptorSet")
	}
	var out []Endpoint
	for _, f := range set.GetFile() {
		out = append(out, ofFile(f, Descriptor)...)
	}
	return Merge(out), nil
}

// Place is where a service can be asked what it has. Either may be empty.
type Place struct {
	Folder  string // its source on this machine
	Address string // host:port where it answers gRPC without TLS
}

// Finder finds the endpoints of services, and keeps them for a while.
type Finder struct {
	Where  func(service string) Place // nil: only the registry's files count
	Limit  time.Duration              // of one search: what was found until then counts. 0: the sources' own limits
	Keep   time.Duration              // 0: a minute
	Logger *slog.Logger

	mu   sync.Mutex
	kept map[string]kept
}

type kept struct {
	at        Place
	endpoints []Endpoint
	until     time.Time
}

// Of is what can be called of a service. A source that fails is in the log, and the others count.
func (f *Finder) Of(ctx context.Context, s registry.Service) []Endpoint {
	var at Place
	if f.Where != nil {
		at = f.Where(s.Name)
	}
	if at == (Place{}) {
		return OfFile(s)
	}
	f.mu.Lock()
	k, ok := f.kept[s.Name]
	f.mu.Unlock()
	if !ok || k.at != at || !time.Now().Before(k.until) {
		if f.Limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, f.Limit)
			defer cancel()
		}
		found, whole := f.find(ctx, s.Name, at)
		k = kept{at, found, time.Now().Add(cmp.Or(f.Keep, time.Minute))}
		if whole { // else the next one looks again
			f.mu.Lock()
			if f.kept == nil || len(f.kept) > maxServices {
				f.kept = map[string]kept{}
			}
			f.kept[s.Name] = k
			f.mu.Unlock()
		}
	}
	return Merge(OfFile(s), k.endpoints)
}

// find asks a service's sources at once. whole says that the same would be found again: none was broken off, or did not answer.
func (f *Finder) find(ctx context.Context, name string, at Place) (found []Endpoint, whole bool) {
	log := f.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var byFolder, byReflection []Endpoint
	var wg sync.WaitGroup
	answered := true
	if at.Folder != "" {
		wg.Go(func() {
			var err error
			if byFolder, err = Folder(ctx, at.Folder); err != nil {
				log.Warn("endpoint: a folder", "service", name, "folder", at.Folder, "error", err)
			}
		})
	}
	if at.Address != "" {
		wg.Go(func() {
			var err error
			byReflection, err = Reflect(ctx, at.Address, func(ctx context.Context) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", at.Address)
			}, nil)
			switch {
			case errors.Is(err, errNoReflection):
				log.Debug("endpoint: reflection", "service", name, "address", at.Address, "error", err)
			case err != nil:
				answered = false
				log.Warn("endpoint: reflection", "service", name, "address", at.Address, "error", err)
			}
		})
	}
	wg.Wait()
	return Merge(byReflection, byFolder), answered && ctx.Err() == nil
}
