package tandem_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"tandem.dev/tandem"
	tandemv1 "tandem.dev/tandem/v1"
)

// gateway refuses the first calls, then answers with the key that came; its streams go on until they are cancelled.
type gateway struct {
	tandemv1.UnimplementedGenerationServiceServer
	numRefusals int32
	pushback    time.Duration
	numCalls    int32
	left        chan struct{}
}

func (g *gateway) Generate(ctx context.Context, _ *tandemv1.GenerateRequest) (*tandemv1.GenerateResponse, error) {
	if atomic.AddInt32(&g.numCalls, 1) <= g.numRefusals {
		trailer := metadata.Pairs("grpc-retry-pushback-ms", strconv.FormatInt(g.pushback.Milliseconds(), 10))
		if err := grpc.SetTrailer(ctx, trailer); err != nil {
			return nil, err
		}
		refusal, err := status.New(codes.Unavailable, "loading").WithDetails(
			&errdetails.ErrorInfo{Reason: "LOADING", Domain: "tandem"},
			&errdetails.RetryInfo{RetryDelay: durationpb.New(g.pushback)},
		)
		if err != nil {
			return nil, err
		}
		return nil, refusal.Err()
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return &tandemv1.GenerateResponse{Output: &tandemv1.Delta{Text: md.Get("authorization")[0]}}, nil
}

func (g *gateway) StreamGenerate(
	_ *tandemv1.StreamGenerateRequest, stream tandemv1.GenerationService_StreamGenerateServer,
) error {
	delta := &tandemv1.StreamGenerateResponse_Delta{Delta: &tandemv1.Delta{Text: "0"}}
	if err := stream.Send(&tandemv1.StreamGenerateResponse{Event: delta}); err != nil {
		return err
	}
	<-stream.Context().Done()
	close(g.left)
	return stream.Context().Err()
}

func clientOf(t *testing.T, g *gateway) *tandem.Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.left = make(chan struct{})
	server := grpc.NewServer()
	tandemv1.RegisterGenerationServiceServer(server, g)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	client, err := tandem.New(listener.Addr().String(), tandem.WithAPIKey("the key"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestARefusalThatPassesIsTriedAgainWhenTheGatewaySays(t *testing.T) {
	g := &gateway{numRefusals: 2, pushback: 150 * time.Millisecond}
	startedAt := time.Now()
	response, err := clientOf(t, g).Generate(context.Background(), &tandemv1.GenerationSpec{})
	if err != nil {
		t.Fatal(err)
	}
	if text := response.GetOutput().GetText(); text != "Bearer the key" || g.numCalls != 3 {
		t.Errorf("%q after %d calls", text, g.numCalls)
	}
	if time.Since(startedAt) < 2*g.pushback {
		t.Errorf("tried again too early, all in %s", time.Since(startedAt))
	}
}

func TestARefusalThatStaysIsToldWithAllThatTheGatewaySaid(t *testing.T) {
	g := &gateway{numRefusals: 100, pushback: 10 * time.Millisecond}
	_, err := clientOf(t, g).Generate(context.Background(), &tandemv1.GenerationSpec{})
	var refused *tandem.Error
	if !errors.As(err, &refused) {
		t.Fatalf("%#v is no *Error", err)
	}
	if refused.Code != codes.Unavailable || !strings.HasSuffix(refused.Message, "loading") || refused.Reason != "LOADING" ||
		refused.Domain != "tandem" || refused.RetryAfter != g.pushback || refused.Field != "" {
		t.Errorf("told as %+v", refused)
	}
	if g.numCalls != 4 {
		t.Errorf("tried %d times", g.numCalls)
	}
	if status.Code(err) != codes.Unavailable || errors.Is(err, context.Canceled) {
		t.Errorf("%v is something else to other packages", err)
	}
}

func TestClosingAStreamCancelsIt(t *testing.T) {
	g := &gateway{}
	stream := startedStream(t, context.Background(), g)
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, context.Canceled) {
		t.Errorf("closed, but %v", err)
	}
	waitUntilLeft(t, g)
}

func TestADeadlineEndsAStreamThatHasBegun(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	g := &gateway{}
	stream := startedStream(t, ctx, g)
	if _, err := stream.Recv(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no deadline, but %v", err)
	}
	waitUntilLeft(t, g)
}

func startedStream(t *testing.T, ctx context.Context, g *gateway) *tandem.Stream {
	t.Helper()
	stream, err := clientOf(t, g).Stream(ctx, &tandemv1.GenerationSpec{})
	if err != nil {
		t.Fatal(err)
	}
	message, err := stream.Recv()
	if err != nil || message.GetDelta().GetText() != "0" {
		t.Fatalf("%v, %v", message, err)
	}
	return stream
}

func waitUntilLeft(t *testing.T, g *gateway) {
	t.Helper()
	select {
	case <-g.left:
	case <-time.After(5 * time.Second):
		t.Error("the gateway was not told")
	}
}
