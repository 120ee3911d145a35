package dev.tandem.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.Parser;
import dev.tandem.client.details.BadRequest;
import dev.tandem.client.details.ErrorInfo;
import dev.tandem.client.details.RequestInfo;
import dev.tandem.client.details.RetryInfo;
import dev.tandem.client.details.Status;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Optional;

/**
 * A call that failed: the gRPC code, and what the server's {@code google.rpc} details say about it.
 *
 * <p>Everything but the code is empty when the failure came from the transport: a connection that broke, a deadline
 * that passed here, a call that this client cancelled.
 */
public final class TandemException extends RuntimeException {
  private static final long serialVersionUID = 1;
  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  private final io.grpc.Status.Code code;
  private final Status details;

  TandemException(StatusRuntimeException cause) {
    super(message(cause.getStatus()), cause);
    code = cause.getStatus().getCode();
    details = details(cause.getTrailers());
  }

  /** The gRPC status code. */
  public io.grpc.Status.Code code() {
    return code;
  }

  /** What went wrong, for programs, such as {@code INVALID_REQUEST} or {@code QUEUE_FULL}. */
  public Optional<String> reason() {
    return detail("ErrorInfo", ErrorInfo.parser()).map(ErrorInfo::getReason);
  }

  /** Whose reason it is: {@code tandem}. */
  public Optional<String> domain() {
    return detail("ErrorInfo", ErrorInfo.parser()).map(ErrorInfo::getDomain);
  }

  /** Path of the field that cannot be served, such as {@code spec.sampling.temperature}. */
  public Optional<String> field() {
    return violation().map(BadRequest.FieldViolation::getField);
  }

  /** What is wrong with that field, for people. */
  public Optional<String> description() {
    return violation().map(BadRequest.FieldViolation::getDescription);
  }

  /** How long the server asks to wait before the call is tried again. */
  public Optional<Duration> retryDelay() {
    return detail("RetryInfo", RetryInfo.parser())
        .map(RetryInfo::getRetryDelay)
        .map(delay -> Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
  }

  /** The id under which the server's log has more; internal errors have it. */
  public Optional<String> requestId() {
    return detail("RequestInfo", RequestInfo.parser()).map(RequestInfo::getRequestId);
  }

  private Optional<BadRequest.FieldViolation> violation() {
    return detail("BadRequest", BadRequest.parser()).flatMap(bad -> bad.getFieldViolationsList().stream().findFirst());
  }

  private <T extends Message> Optional<T> detail(String name, Parser<T> parser) {
    for (Any detail : details.getDetailsList()) {
      if (detail.getTypeUrl().endsWith("/google.rpc." + name)) {
        try {
          return Optional.of(parser.parseFrom(detail.getValue()));
        } catch (InvalidProtocolBufferException unreadable) {
          return Optional.empty();
        }
      }
    }
    return Optional.empty();
  }

  /** A broken connection tells why in its innermost cause; all others in their description. */
  private static String message(io.grpc.Status status) {
    Throwable cause = status.getCause();
    while (cause != null && cause.getCause() != null) {
      cause = cause.getCause();
    }
    String description = cause == null || cause.getMessage() == null ? status.getDescription() : cause.getMessage();
    return description == null ? status.getCode().name() : status.getCode() + ": " + description;
  }

  private static Status details(Metadata trailers) {
    byte[] serialized = trailers == null ? null : trailers.get(DETAILS);
    try {
      return serialized == null ? Status.getDefaultInstance() : Status.parseFrom(serialized);
    } catch (InvalidProtocolBufferException unreadable) {
      return Status.getDefaultInstance();
    }
  }
}
