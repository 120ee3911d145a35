// Package tandem calls a Tandem gateway. The messages are those of protos/tandem/v1.
package tandem

import (
	"context"

	"google.golang.org/grpc"

	tandemv1 "tandem.dev/tandem/v1"
)

// Client calls one gateway. Its methods may be called from any number of goroutines.
type Client struct {
	conn       *grpc.ClientConn
	generation tandemv1.GenerationServiceClient
	models     tandemv1.ModelServiceClient
}

// New returns a client of the gateway at HOST:PORT or unix:/PATH. It connects when it is first used, and again
// whenever the connection breaks. New fails only when the address or an option makes no sense.
func New(address string, options ...Option) (*Client, error) {
	conn, err := grpc.Dial(address, dialOptions(options)...)
	if err != nil {
		return nil, err
	}
	return &Client{
		conn:       conn,
		generation: tandemv1.NewGenerationServiceClient(conn),
		models:     tandemv1.NewModelServiceClient(conn),
	}, nil
}

// Stream asks for a text as it is made. The end of ctx ends it, here and at the gateway. Whoever does not read it to
// its end closes it. The error, like that of every method below, is an *Error.
func (c *Client) Stream(ctx context.Context, spec *tandemv1.GenerationSpec) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	call, err := c.generation.StreamGenerate(ctx, &tandemv1.StreamGenerateRequest{Spec: spec})
	if err != nil {
		cancel()
		return nil, asError(err)
	}
	return &Stream{call: call, cancel: cancel}, nil
}

// Generate asks for the whole text at once.
func (c *Client) Generate(ctx context.Context, spec *tandemv1.GenerationSpec) (*tandemv1.GenerateResponse, error) {
	response, err := c.generation.Generate(ctx, &tandemv1.GenerateRequest{Spec: spec})
	return response, asError(err)
}

// CountTokens says how many tokens the prompt of spec has.
func (c *Client) CountTokens(ctx context.Context, spec *tandemv1.GenerationSpec) (int, error) {
	response, err := c.generation.CountTokens(ctx, &tandemv1.CountTokensRequest{Spec: spec})
	return int(response.GetNumTokens()), asError(err)
}

// Models says what is served.
func (c *Client) Models(ctx context.Context) ([]*tandemv1.Model, error) {
	response, err := c.models.ListModels(ctx, &tandemv1.ListModelsRequest{})
	return response.GetModels(), asError(err)
}

// Close closes the connection and ends every call that still runs.
func (c *Client) Close() error {
	return c.conn.Close()
}
