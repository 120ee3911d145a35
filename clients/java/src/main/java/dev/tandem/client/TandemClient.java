package dev.tandem.client;

import dev.tandem.v1.CountTokensRequest;
import dev.tandem.v1.GenerateRequest;
import dev.tandem.v1.GenerateResponse;
import dev.tandem.v1.GenerationServiceGrpc;
import dev.tandem.v1.GenerationServiceGrpc.GenerationServiceBlockingStub;
import dev.tandem.v1.GenerationSpec;
import dev.tandem.v1.GetModelRequest;
import dev.tandem.v1.Model;
import dev.tandem.v1.ModelServiceGrpc;
import dev.tandem.v1.ModelServiceGrpc.ModelServiceBlockingStub;
import dev.tandem.v1.StreamGenerateRequest;
import io.grpc.Context;
import io.grpc.Context.CancellableContext;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.AbstractStub;
import java.io.File;
import java.time.Duration;
import java.util.Iterator;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * A Tandem server, over one connection that is opened at the first call and shared by all threads.
 *
 * <p>Calls that were refused before they began are tried again by themselves: while the server loads or drains, and as
 * it asks when its queue is full.
 */
public final class TandemClient implements AutoCloseable {
  private final ManagedChannel channel;
  private final Duration timeout;
  private final GenerationServiceBlockingStub generation;
  private final ModelServiceBlockingStub models;

  private TandemClient(Builder builder) {
    channel = Connection.open(builder.address, builder.authorities, builder.apiKey);
    timeout = builder.timeout;
    generation = GenerationServiceGrpc.newBlockingStub(channel);
    models = ModelServiceGrpc.newBlockingStub(channel);
  }

  /**
   * A client to be.
   *
   * @param address {@code HOST:PORT}, or {@code unix:/PATH} for a Unix socket
   */
  public static Builder builder(String address) {
    return new Builder(address);
  }

  /**
   * Generates a whole text, within the client's timeout.
   *
   * @throws TandemException the call failed
   */
  public GenerateResponse generate(GenerationSpec spec) {
    return generate(spec, timeout);
  }

  /**
   * Generates a whole text.
   *
   * @param timeout the most time that it may take, retries included
   * @throws TandemException the call failed; {@code DEADLINE_EXCEEDED}: it took too long, and the server gave it up
   */
  public GenerateResponse generate(GenerationSpec spec, Duration timeout) {
    GenerateRequest request = GenerateRequest.newBuilder().setSpec(spec).build();
    return call(() -> within(timeout, generation).generate(request));
  }

  /** Generates a text and tells it as it is made, within the client's timeout. Failures show where it is read. */
  public EventStream stream(GenerationSpec spec) {
    return stream(spec, timeout);
  }

  /**
   * Generates a text and tells it as it is made. Failures show where it is read.
   *
   * @param timeout the most time until its end
   */
  public EventStream stream(GenerationSpec spec, Duration timeout) {
    StreamGenerateRequest request = StreamGenerateRequest.newBuilder().setSpec(spec).build();
    CancellableContext context = Context.current().withCancellation();
    Context previous = context.attach();
    try {
      return new EventStream(context, within(timeout, generation).streamGenerate(request));
    } finally {
      context.detach(previous);
    }
  }

  /**
   * Tokens of a prompt after encoding.
   *
   * @throws TandemException the call failed
   */
  public int countTokens(GenerationSpec spec) {
    CountTokensRequest request = CountTokensRequest.newBuilder().setSpec(spec).build();
    return call(() -> within(timeout, generation).countTokens(request)).getNumTokens();
  }

  /**
   * The one model served, and its drafter.
   *
   * @throws TandemException the call failed
   */
  public Model model() {
    return call(() -> within(timeout, models).getModel(GetModelRequest.getDefaultInstance())).getModel();
  }

  /** Ends every call and the connection. */
  @Override
  public void close() {
    channel.shutdownNow();
  }

  private static <S extends AbstractStub<S>> S within(Duration timeout, S stub) {
    return timeout == null ? stub : stub.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
  }

  private static <T> T call(Supplier<T> call) {
    try {
      return call.get();
    } catch (StatusRuntimeException error) {
      throw new TandemException(error);
    }
  }

  /** What a client has to know. By default: plain text, no key, no timeout. */
  public static final class Builder {
    private final String address;
    private File authorities;
    private String apiKey;
    private Duration timeout;

    private Builder(String address) {
      this.address = address;
    }

    /** Speaks TLS with a server whose certificate comes from one of the authorities in this file (PEM). */
    public Builder authorities(File pem) {
      authorities = pem;
      return this;
    }

    /** Sends this key with every call. Without TLS, whoever can read the network can read it. */
    public Builder apiKey(String key) {
      apiKey = key;
      return this;
    }

    /** The most time that a call may take, where it says nothing else. */
    public Builder timeout(Duration most) {
      timeout = most;
      return this;
    }

    /**
     * The client. Nothing is sent before its first call.
     *
     * @throws IllegalArgumentException the file of authorities cannot be read or is no PEM, or the key is no key
     */
    public TandemClient build() {
      return new TandemClient(this);
    }
  }
}
