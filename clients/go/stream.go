package tandem

import (
	"context"
	"io"

	tandemv1 "tandem.dev/tandem/v1"
)

// Stream is a text as it is made. One goroutine may read it while another closes it.
type Stream struct {
	call   tandemv1.GenerationService_StreamGenerateClient
	cancel context.CancelFunc
}

// Recv waits for the next message: first GetStarted is set, then any number of times GetDelta, then once GetFinished.
// After that the error is io.EOF. A text that ended early gives an *Error. A delta often holds several tokens.
func (s *Stream) Recv() (*tandemv1.StreamGenerateResponse, error) {
	message, err := s.call.Recv()
	if err == io.EOF {
		s.cancel()
		return nil, err
	}
	if err != nil {
		s.cancel()
		return nil, asError(err)
	}
	return message, nil
}

// Close ends the text, which frees what it held at the gateway within a round. It is safe to call at any time, and
// always nil.
func (s *Stream) Close() error {
	s.cancel()
	return nil
}
