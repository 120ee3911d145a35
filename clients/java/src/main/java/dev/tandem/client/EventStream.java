package dev.tandem.client;

import dev.tandem.v1.StreamGenerateResponse;
import io.grpc.Context.CancellableContext;
import io.grpc.StatusRuntimeException;
import java.util.Iterator;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.concurrent.CancellationException;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * The messages of a text as it is made: one {@code started}, any number of {@code delta}, one {@code finished}.
 *
 * <p>Reading blocks until the next message is there. Closing before the end cancels the work on the server within one
 * round. One thread reads; any thread may cancel.
 */
public final class EventStream implements Iterator<StreamGenerateResponse>, AutoCloseable {
  private final CancellableContext context;
  private final Iterator<StreamGenerateResponse> responses;

  EventStream(CancellableContext context, Iterator<StreamGenerateResponse> responses) {
    this.context = context;
    this.responses = responses;
  }

  /**
   * Whether there is another message; waits for it.
   *
   * @throws TandemException the call failed, or was cancelled ({@code CANCELLED})
   */
  @Override
  public boolean hasNext() {
    try {
      return responses.hasNext();
    } catch (StatusRuntimeException error) {
      context.cancel(error);
      throw new TandemException(error);
    }
  }

  /**
   * The next message; waits for it.
   *
   * @throws TandemException as {@link #hasNext}
   * @throws java.util.NoSuchElementException after the last one
   */
  @Override
  public StreamGenerateResponse next() {
    hasNext();
    return responses.next();
  }

  /** The same messages as a stream of Java's; to be closed in place of this one. */
  public Stream<StreamGenerateResponse> stream() {
    int order = Spliterator.ORDERED | Spliterator.NONNULL;
    return StreamSupport.stream(Spliterators.spliteratorUnknownSize(this, order), false).onClose(this::close);
  }

  /** The new text of each message that has any, to be closed in place of this one. */
  public Stream<String> texts() {
    return stream().map(event -> event.getDelta().getText()).filter(text -> !text.isEmpty());
  }

  /** Ends the call; whoever reads meets {@code CANCELLED}. Does nothing after the end. */
  public void cancel() {
    context.cancel(new CancellationException("the client cancelled the call"));
  }

  /** Cancels what has not come yet. */
  @Override
  public void close() {
    cancel();
  }
}
