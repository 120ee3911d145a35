// Command cases is what the tests of all clients ask of each: cases CASE prints one JSON object.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"tandem.dev/tandem"
	"tandem.dev/tandem/internal/environment"
	tandemv1 "tandem.dev/tandem/v1"
)

type result map[string]interface{}

var cases = map[string]func(context.Context, *tandem.Client) (result, error){
	"stream":      stream,
	"unary":       unary,
	"cancel":      cancel,
	"deadline":    deadline,
	"bad_request": badRequest,
	"key":         key,
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 || cases[os.Args[1]] == nil {
		return errors.New("which case?")
	}
	client, err := environment.NewClient()
	if err != nil {
		return err
	}
	defer client.Close()
	shown, err := cases[os.Args[1]](context.Background(), client)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(shown)
}

func spec(maxTokens int32) *tandemv1.GenerationSpec {
	return &tandemv1.GenerationSpec{
		Prompt:   &tandemv1.GenerationSpec_Text{Text: "def read_lines(path):"},
		Sampling: &tandemv1.SamplingOptions{Temperature: proto.Float32(0)},
		Stopping: &tandemv1.StoppingOptions{MaxTokens: proto.Int32(maxTokens)},
	}
}

func longSpec() *tandemv1.GenerationSpec {
	long := spec(900)
	long.Stopping.IgnoreEos = true
	return long
}

func stream(ctx context.Context, client *tandem.Client) (result, error) {
	messages, err := client.Stream(ctx, spec(32))
	if err != nil {
		return nil, err
	}
	defer messages.Close()
	var text, requestID string
	var numMessages int
	var numTokens int32
	var finished *tandemv1.Finished
	for {
		message, err := messages.Recv()
		if errors.Is(err, io.EOF) {
			return result{
				"text":          text,
				"num_messages":  numMessages,
				"num_tokens":    numTokens,
				"finish_reason": finished.GetReason().String(),
				"num_rounds":    finished.GetSpeculation().GetNumRounds(),
				"request_id":    requestID,
			}, nil
		}
		if err != nil {
			return nil, err
		}
		switch event := message.GetEvent().(type) {
		case *tandemv1.StreamGenerateResponse_Started:
			requestID = event.Started.GetRequestId()
		case *tandemv1.StreamGenerateResponse_Delta:
			text += event.Delta.GetText()
			numTokens += event.Delta.GetNumTokens()
			if event.Delta.GetText() != "" {
				numMessages++
			}
		case *tandemv1.StreamGenerateResponse_Finished:
			finished = event.Finished
		}
	}
}

func unary(ctx context.Context, client *tandem.Client) (result, error) {
	response, err := client.Generate(ctx, spec(32))
	if err != nil {
		return nil, err
	}
	return result{
		"text":          response.GetOutput().GetText(),
		"num_tokens":    response.GetOutput().GetNumTokens(),
		"finish_reason": response.GetFinished().GetReason().String(),
		"request_id":    response.GetStarted().GetRequestId(),
	}, nil
}

func cancel(ctx context.Context, client *tandem.Client) (result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, err := client.Stream(ctx, longSpec())
	if err != nil {
		return nil, err
	}
	var numTokens int32
	for {
		message, err := messages.Recv()
		if errors.Is(err, context.Canceled) {
			return result{"code": "CANCELLED", "num_tokens": numTokens}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("not cancelled: %w", err)
		}
		numTokens += message.GetDelta().GetNumTokens()
		if message.GetDelta().GetText() != "" {
			cancel()
		}
	}
}

func deadline(ctx context.Context, client *tandem.Client) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := client.Generate(ctx, longSpec())
	if !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("no deadline: %w", err)
	}
	return result{"code": "DEADLINE_EXCEEDED"}, nil
}

func badRequest(ctx context.Context, client *tandem.Client) (result, error) {
	bad := spec(32)
	bad.Sampling.Temperature = proto.Float32(-1)
	_, err := client.Generate(ctx, bad)
	var refused *tandem.Error
	if !errors.As(err, &refused) || refused.Code != codes.InvalidArgument {
		return nil, fmt.Errorf("not refused: %w", err)
	}
	return result{
		"code":        "INVALID_ARGUMENT",
		"reason":      refused.Reason,
		"domain":      refused.Domain,
		"field":       refused.Field,
		"description": refused.Description,
	}, nil
}

func key(ctx context.Context, client *tandem.Client) (result, error) {
	response, err := client.Generate(ctx, spec(4))
	var refused *tandem.Error
	if errors.As(err, &refused) && refused.Code == codes.Unauthenticated {
		return result{"code": "UNAUTHENTICATED", "reason": refused.Reason}, nil
	}
	if err != nil {
		return nil, err
	}
	return result{"text": response.GetOutput().GetText()}, nil
}
