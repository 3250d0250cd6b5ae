// Package connect has the declarations of connectrpc.com/connect that generated code needs.
package connect

import (
	"context"
	"net/http"
)

const IsAtLeastVersion1_13_0 = true

type (
	HTTPClient interface {
		Do(*http.Request) (*http.Response, error)
	}
	ClientOption  interface{ client() }
	HandlerOption interface{ handler() }
	Option        interface {
		ClientOption
		HandlerOption
	}
	Code            uint32
	Request[T any]  struct{ Msg *T }
	Response[T any] struct{ Msg *T }

	Client[Req, Res any]                struct{ url string }
	ServerStreamForClient[Res any]      struct{}
	ClientStreamForClient[Req, Res any] struct{}
	ServerStream[Res any]               struct{}
	ClientStream[Req any]               struct{}
	Handler                             struct{}
)

const CodeUnimplemented Code = 12

func NewRequest[T any](m *T) *Request[T]   { return &Request[T]{m} }
func NewResponse[T any](m *T) *Response[T] { return &Response[T]{m} }
func NewError(_ Code, err error) error     { return err }

func WithSchema(any) Option                             { return nil }
func WithClientOptions(...ClientOption) ClientOption    { return nil }
func WithHandlerOptions(...HandlerOption) HandlerOption { return nil }

func NewClient[Req, Res any](_ HTTPClient, url string, _ ...ClientOption) *Client[Req, Res] {
	return &Client[Req, Res]{url}
}

func (*Client[Req, Res]) CallUnary(context.Context, *Request[Req]) (*Response[Res], error) {
	return nil, nil
}

func (*Client[Req, Res]) CallServerStream(context.Context, *Request[Req]) (*ServerStreamForClient[Res], error) {
	return nil, nil
}

func (*Client[Req, Res]) CallClientStream(context.Context) *ClientStreamForClient[Req, Res] {
	return nil
}

func (*Handler) ServeHTTP(http.ResponseWriter, *http.Request) {}

func NewUnaryHandler[Req, Res any](string, func(context.Context, *Request[Req]) (*Response[Res], error), ...HandlerOption) *Handler {
	return &Handler{}
}

func NewServerStreamHandler[Req, Res any](string, func(context.Context, *Request[Req], *ServerStream[Res]) error, ...HandlerOption) *Handler {
	return &Handler{}
}

func NewClientStreamHandler[Req, Res any](string, func(context.Context, *ClientStream[Req]) (*Response[Res], error), ...HandlerOption) *Handler {
	return &Handler{}
}
